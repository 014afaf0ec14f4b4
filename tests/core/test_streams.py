"""Named streams: the same numbers for ever, and none that follows another."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from feldspar.core.streams import hash_integers, numpy_stream, stream_seed


def test_golden_numbers() -> None:
    # A change of these changes every run that was ever started: never edit them.
    assert [stream_seed(0), stream_seed(0, "model.init"), stream_seed(1, "data.order", 3)] == [
        1887154467326967967,
        1459485459260227451,
        4155922508651807571,
    ]
    assert numpy_stream(0, "data.order").integers(0, 1000, 4).tolist() == [384, 88, 172, 113]


def test_hash_is_the_finaliser_of_splitmix64() -> None:
    # The published generator, seed 1234567: its n-th output mixes seed + n * golden gamma.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(n * gamma) % 2**64 for n in range(3)], dtype=np.uint64)
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert hash_integers(states, 1234567).tolist() == published


def test_names_and_roots_are_kept_apart() -> None:
    parts: list[tuple[str | int, ...]] = [(), ("a",), ("ab",), ("a", "b"), ("b", "a"), (1,), ("1",)]
    seeds = [stream_seed(root, *names) for root, names in itertools.product(range(50), parts)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_seed_is_the_same_in_another_process() -> None:
    script = "from feldspar.core.streams import stream_seed; print(stream_seed(7, 'x', 2))"
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(result.stdout) == stream_seed(7, "x", 2)


def test_streams_do_not_follow_one_another() -> None:
    draws = np.stack([numpy_stream(0, "stream", n).standard_normal(2000) for n in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)  # five standard errors


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_hash_keeps_the_shape_and_is_one_to_one(shape: tuple[int, ...]) -> None:
    assert hash_integers(np.zeros(shape, dtype=np.int64), 1).shape == shape
    values = hash_integers(np.arange(10_000), 5)
    assert len(np.unique(values)) == 10_000
