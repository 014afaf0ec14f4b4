"""Sequences a second, and the time from nothing to the first sequence at token 10 and 10^9.

The shards are synthesised as sparse files with real document ends: 2 x 10^9 tokens that take almost
no disk. Run:

    python benchmarks/data_loading.py
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.execution import available_cores
from feldspar.core.machine import processor
from feldspar.core.manifest import FileRecord, Manifest, write_manifest
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.shards.writer import ENDS_SUFFIX, TOKENS_SUFFIX

RESULTS = Path(__file__).parent / "results" / "data_loading.json"
SHARES = {"web": Fraction(7, 10), "code": Fraction(2, 10), "books": Fraction(1, 10)}
SHARD_TOKENS = 2**28


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=2e9)
    parser.add_argument("--document-tokens", type=int, default=700)
    parser.add_argument("--context-length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = synthesise(folder, int(options.tokens), options.document_tokens)
        result = measure(folder, documents, options.context_length, options.rounds)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(folder: Path, documents: int, length: int, rounds: int) -> dict[str, Any]:
    """Throughput of a running reader, and resume times in alternating rounds."""
    shards = ShardSet.open(folder)
    total = sum(shards.tokens("train", name) for name in SHARES)
    phase = PhaseData("one", SHARES, length, total // length)
    reader = SequenceReader(shards, [phase], seed=1)
    reader.read(0, 0, 8)
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < 3:
        reader.read(0, 8 + count, 8 + count + 32)
        count += 32
    rate = count / (time.perf_counter() - start)
    resume: dict[str, list[float]] = {"10": [], "1000000000": []}
    for _ in range(rounds):
        for token, times in resume.items():
            first = int(token) // length
            start = time.perf_counter()
            fresh = SequenceReader(ShardSet.open(folder), [phase], seed=1)
            fresh.read(0, first, first + 8)
            times.append(time.perf_counter() - start)
            del fresh
    medians = {token: statistics.median(times) for token, times in resume.items()}
    return {
        "machine": {
            "processor": processor(),
            "cores": available_cores(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "tokens": total,
        "documents": documents,
        "context_length": length,
        "sequences_per_second": rate,
        "tokens_per_second": rate * length,
        "resume_seconds_at_token": medians,
        "resume_ratio": medians["1000000000"] / medians["10"],
    }


def synthesise(folder: Path, tokens: int, document_tokens: int) -> int:
    """Sparse shards of three sources; returns the number of documents."""
    rng = np.random.default_rng(0)
    splits: dict[str, Any] = {}
    files: dict[str, FileRecord] = {}
    for name, share in SHARES.items():
        target = folder / "train" / name
        target.mkdir(parents=True)
        left, number = int(tokens * share), 0
        splits[name] = {"documents": 0, "tokens": 0}
        while left > 0:
            wanted = min(SHARD_TOKENS, left)
            lengths = rng.geometric(1 / document_tokens, wanted // document_tokens + 1)
            ends = np.cumsum(lengths).astype("<u8")
            stem = f"{number:05d}"
            with (target / (stem + TOKENS_SUFFIX)).open("wb") as file:
                file.truncate(int(ends[-1]) * 2)
            np.save(target / (stem + ENDS_SUFFIX), ends)
            splits[name]["documents"] += len(ends)
            splits[name]["tokens"] += int(ends[-1])
            left, number = left - int(ends[-1]), number + 1
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = FileRecord(path.stat().st_size, "")
    counts = {
        "tokenizer_digest": "",
        "vocab_size": 50_257,
        "end_of_document": "<|endoftext|>",
        "end_of_document_id": 0,
        "dtype": "<u2",
        "splits": {"train": splits},
    }
    write_manifest(folder, Manifest("shards", "benchmark", "0", counts=counts, files=files))
    return sum(source["documents"] for source in splits.values())


if __name__ == "__main__":
    main()
