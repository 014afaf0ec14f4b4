"""The order of the data again, from its record and the shards alone; nothing of feldspar is used.

Written from "The rule, exactly" in docs/methods/data-order.md, for phases that read whole sources.
"""

import hashlib
import heapq
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 8192
WORD = (1 << 64) - 1


def seed_of(seed: int, *names: str | int) -> int:
    state = hashlib.blake2b(digest_size=8)
    for part in (seed, *names):
        text = f"{'int' if isinstance(part, int) else 'str'}:{part}".encode()
        state.update(len(text).to_bytes(4, "little"))
        state.update(text)
    return int.from_bytes(state.digest(), "little") // 2


def mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & WORD
    return value ^ (value >> 31)


def shuffled(number: int, size: int, key: int) -> int:
    """The Feistel network over the smallest power of four that holds ``size``, walked in cycles."""
    bits = 1
    while 4**bits < size:
        bits += 1
    mask = 2**bits - 1
    while True:
        left, right = number >> bits, number & mask
        for turn in range(4):
            word = (right + key + turn * 0x9E3779B97F4A7C15) & WORD
            word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
            word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
            left, right = right, left ^ (word >> 40 & mask)
        number = left << bits | right
        if number < size:
            return number


class Source:
    """All documents of one source, and where the run stands in it."""

    def __init__(self, folder: Path, name: str, dtype: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.documents: list[np.ndarray] = []
        for file in sorted(folder.glob("*.tokens")):
            tokens = np.fromfile(file, dtype)
            ends = np.load(file.with_suffix(".ends.npy")).astype(np.int64)
            self.documents += np.split(tokens, ends[:-1])
        self.size = sum(map(len, self.documents))
        self.epoch, self.token = 0, 0
        self._streams: dict[int, tuple[np.ndarray, list[int]]] = {}

    def stream(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The tokens of an epoch in order, and the ends of its documents."""
        if epoch not in self._streams:
            key = seed_of(self.seed, "data.order", self.name, epoch)
            marks = [
                mixed((index + key + 0x9E3779B97F4A7C15) & WORD)
                for index in range(len(self.documents))
            ]
            order = sorted(range(len(marks)), key=lambda index: marks[index])
            parts = [self.documents[index] for index in order]
            self._streams[epoch] = np.concatenate(parts), np.cumsum([*map(len, parts)]).tolist()
        return self._streams[epoch]

    def window(self, number: int, length: int) -> tuple[int, int, int, int]:
        """Epoch and first token of a window, and first window and windows of its epoch."""
        epoch, token, first = self.epoch, self.token, 0
        while number >= first + (count := max(0, (self.size - token - 1) // length)):
            epoch, token, first = epoch + 1, 0, first + count
        return epoch, token + (number - first) * length, first, count

    def go_on(self, windows: int, length: int) -> None:
        """Move behind so many windows."""
        if windows:
            self.epoch, token, *_ = self.window(windows - 1, length)
            self.token = token + length

    def to_next_document(self) -> None:
        if self.token:
            self.token = next(end for end in self.stream(self.epoch)[1] if end >= self.token)


def sources_in_order(shares: list[Fraction], count: int) -> list[tuple[int, int]]:
    """The source of each sequence, and how many of its own came before."""
    due = [(Fraction(1, 2) / share, number, 0) for number, share in enumerate(shares)]
    heapq.heapify(due)
    found = []
    for _ in range(count):
        _, number, k = heapq.heappop(due)
        found.append((number, k))
        heapq.heappush(due, ((k + Fraction(3, 2)) / shares[number], number, k + 1))
    return found


Place = tuple[int, int, int]
"""Number of the source in its phase, epoch, first token in the epoch's stream."""


def sequences_of(order: dict[str, Any], shards: Path) -> list[list[tuple[Place, np.ndarray]]]:
    """For each phase its sequences: the place, and L + 1 tokens."""
    seed, dtype = order["seed"], order["shards"]["dtype"]
    sources: dict[str, Source] = {}
    phases = []
    before = None
    for index, phase in enumerate(order["phases"]):
        assert phase["rule"] == "shards" and order["shards"]["begin_of_sequence_id"] is None
        length, names = phase["context_length"], [each["source"] for each in phase["sources"]]
        for name in names:
            if name not in sources:
                sources[name] = Source(shards / "train" / name, name, dtype, seed)
        if before not in (None, length):
            for source in sources.values():
                source.to_next_document()
        shares = [Fraction(each["probability"]) for each in phase["sources"]]
        planned = sources_in_order(shares, phase["sequences"])
        totals = [sum(number == which for number, _ in planned) for which in range(len(names))]
        found = []
        for number, k in planned[: phase["sequences_read"]]:
            source = sources[names[number]]
            _, _, first, count = source.window(k, length)
            stop = min(first + count, totals[number])
            block = first + (k - first) // BLOCK * BLOCK
            key = seed_of(seed, "data.windows", source.name, index, block)
            place = block + shuffled(k - block, min(BLOCK, stop - block), key)
            epoch, token, *_ = source.window(place, length)
            tokens = source.stream(epoch)[0][token : token + length + 1]
            found.append(((number, epoch, token), tokens))
        for name, total in zip(names, totals, strict=True):
            sources[name].go_on(total, length)
        phases.append(found)
        before = length
    return phases


def digest_of(sequences: list[np.ndarray]) -> str:
    state = hashlib.sha256()
    for tokens in sequences:
        state.update(tokens.astype("<u4").tobytes())
    return state.hexdigest()
