"""Named random streams: each use of chance has its own seed, derived from the root seed."""

import hashlib

import numpy as np


def stream_seed(root_seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on the root seed and on each name of the stream.

    Python's own ``hash`` changes from process to process and is never used for data.
    """
    state = hashlib.blake2b(digest_size=8)
    for part in (root_seed, *names):
        text = f"{type(part).__name__}:{part}".encode()
        state.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(state.digest(), "little") >> 1


def numpy_stream(root_seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator (Philox, counter-based) for one named stream."""
    return np.random.Generator(np.random.Philox(stream_seed(root_seed, *names)))


def hash_integers(values: np.ndarray, key: int) -> np.ndarray:
    """Mix each integer with ``key`` into 64 bits by the finaliser of splitmix64."""
    mixed = values.astype(np.uint64) + np.uint64(key & 0xFFFFFFFFFFFFFFFF)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
