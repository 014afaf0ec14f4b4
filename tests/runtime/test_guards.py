"""Guards: what is not finite is refused and recorded, a spike is told from noise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import RunError
from feldspar.core.records import read_records
from feldspar.recipe.sections.runtime import SkipNonFinite, StopOnNonFinite
from feldspar.runtime.guards import NonFinitePolicy, SpikeDetector, all_finite
from feldspar.runtime.run_folder import RunFolder

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
def test_any_number_that_is_not_finite_counts(bad: float) -> None:
    assert all_finite(torch.tensor(1.0), torch.tensor(0.0))
    assert all_finite(1.0, 1e38)
    assert not all_finite(torch.tensor(bad), torch.tensor(1.0))
    assert not all_finite(1.0, torch.tensor(bad, dtype=torch.bfloat16))


def test_stop_names_the_step_and_records_the_batch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    policy = NonFinitePolicy(StopOnNonFinite(), folder)
    with pytest.raises(RunError, match="step 7 is not finite"):
        policy.refuse(7, 70, ["a/3", "b/1"], NAN, 2.0)
    (record,) = read_records(folder.bad_batches)
    assert record["batch"] == ["a/3", "b/1"] and record["loss_by_rank"] == ["nan"]
    assert (record["step"], record["tokens"], record["gradient_norm"]) == (7, 70, 2.0)


def test_skip_ends_after_its_limit_also_across_a_resume(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    policy = NonFinitePolicy(SkipNonFinite(up_to=2), folder)
    policy.refuse(1, 10, [], INFINITY, 1.0)
    resumed = NonFinitePolicy(SkipNonFinite(up_to=2), folder)
    resumed.load_state(policy.state())
    resumed.refuse(2, 20, [], 1.0, NAN)
    assert "2 of at most 2" in news.lines[-1]
    with pytest.raises(RunError):
        resumed.refuse(3, 30, [], NAN, NAN)
    assert len(list(read_records(folder.bad_batches))) == 3


def noise(steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    return (3 + 0.05 * torch.randn(steps, generator=generator)).tolist()


def test_a_spike_is_found_and_noise_is_not() -> None:
    detector = SpikeDetector()
    assert all(detector.observe(step, loss) is None for step, loss in enumerate(noise(200)))
    spike = detector.observe(200, 4.5)
    assert spike is not None and "step 200" in str(spike)
    assert detector.observe(201, 3.0) is None
    assert detector.observe(202, NAN) is None


def test_a_new_level_is_accepted_in_the_end() -> None:
    detector = SpikeDetector(window=16, warmup=8, patience=4)
    losses = noise(16) + [loss + 2 for loss in noise(40)]
    spikes = [step for step, loss in enumerate(losses) if detector.observe(step, loss)]
    assert spikes[:4] == [16, 17, 18, 19] and spikes[-1] < 24


@given(losses=st.lists(st.floats(0, 20), min_size=1, max_size=60), cut=st.integers(0, 60))
def test_a_resumed_detector_goes_on_alike(losses: list[float], cut: int) -> None:
    settings = {"window": 16, "warmup": 4, "sigmas": 2.0, "patience": 3}
    whole, first, second = (SpikeDetector(**settings) for _ in range(3))
    seen = [whole.observe(step, loss) for step, loss in enumerate(losses)]
    again = [first.observe(step, loss) for step, loss in enumerate(losses[:cut])]
    second.load_state(first.state())
    again += [second.observe(cut + i, loss) for i, loss in enumerate(losses[cut:])]
    assert seen == again
