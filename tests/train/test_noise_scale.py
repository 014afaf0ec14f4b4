"""The noise scale measured in a run: against single backward passes; it changes nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.noise_scale.statistics import Moments
from feldspar.recipe import load_recipe
from feldspar.runtime import Distribution
from feldspar.train import load_run, train
from feldspar.train.run import TrainingRun
from tests.train.conftest import losses_of, metrics_of

SHORT = ("phases.0.length=6 steps", "phases.1.length=2 steps", "evaluation.every=8 steps")


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), [*SHORT, *overrides]), out)
    return losses_of(out)


def belongs(name: str, group: str) -> bool:
    return group == "total" or "norm" in name


def reference(recipe: Path, folder: Path) -> dict[str, Moments]:
    """The first step's moments of the model and of its norms: one backward pass a sequence."""
    loaded = load_recipe(str(recipe), list(SHORT))
    made = TrainingRun(loaded, folder, Distribution.start(loaded.recipe.runtime))
    session = made.prepare()
    step = made.plan.timeline.next_step(0)
    assert step is not None
    session.task.prefetch(step)
    [(inputs, labels)] = session.task.take()
    squares = {"total": 0.0, "norm": 0.0}
    whole: dict[str, torch.Tensor] = {}
    for row in range(len(inputs)):
        loss = session.task.module(inputs[row : row + 1], labels[row : row + 1])
        (loss / labels.numel()).backward()
        for name, parameter in session.decoder.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            for group in squares:
                squares[group] += belongs(name, group) * float(gradient.double().square().sum())
            whole[name] = whole.get(name, torch.zeros(())) + gradient.double()
        session.runner.optimizer.zero_gradients()
    session.task.close()
    n = len(inputs)
    return {
        group: Moments(
            n * squares[group],
            sum(float(whole[name].square().sum()) for name in whole if belongs(name, group)),
            n,
        )
        for group in squares
    }


@pytest.mark.parametrize("micro_batch", [8, 3])
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_the_first_step_is_that_of_single_backward_passes(
    recipe_file: Path, tmp_path: Path, micro_batch: int, memory: str
) -> None:
    expected = reference(recipe_file, tmp_path / "reference")
    out = tmp_path / "run"
    run(
        recipe_file,
        out,
        "noise_scale.coverage=all",
        f"runtime.micro_batch_sequences={micro_batch}",
        f"runtime.activation_memory={memory}",
    )
    first = metrics_of(out)[0]
    for group, moments in expected.items():
        assert first[f"noise_scale/{group}/noise"] == pytest.approx(moments.noise, rel=1e-4)
        assert first[f"noise_scale/{group}/signal_sq"] == pytest.approx(
            moments.signal_sq, rel=1e-3, abs=1e-6 * moments.noise
        )


def test_measuring_changes_neither_losses_nor_weights_names(
    recipe_file: Path, tmp_path: Path
) -> None:
    plain = run(recipe_file, tmp_path / "plain", "runtime.micro_batch_sequences=2")
    out = tmp_path / "measured"
    measured = run(
        recipe_file,
        out,
        "noise_scale.calibrate=microbatch",
        "runtime.micro_batch_sequences=2",
    )
    assert measured == pytest.approx(plain, rel=1e-6)
    names = {name: tensor.shape for name, tensor in load_run(out).decoder.state_dict().items()}
    before = load_run(tmp_path / "plain").decoder.state_dict()
    assert names == {name: tensor.shape for name, tensor in before.items()}
    last = metrics_of(out)[-1]
    assert {"noise_scale/norm", "noise_scale/total/low", "noise_scale/factor"} <= set(last)
    assert last["noise_scale/total/status"] in ("measured", "undetermined")


def test_a_resumed_run_measures_on_bit_for_bit(recipe_file: Path, tmp_path: Path) -> None:
    options = ("noise_scale.calibrate=microbatch", "runtime.micro_batch_sequences=2")
    whole, out = tmp_path / "whole", tmp_path / "part"
    run(recipe_file, whole, *options)
    run(recipe_file, out, *options)
    newest = sorted((out / "checkpoints").iterdir(), key=lambda folder: int(folder.name))[-1]
    shutil.rmtree(newest)
    run(recipe_file, out, *options)
    timed = ("tokens_per_second", "model_flop_utilisation")
    records = [
        [{key: value for key, value in row.items() if key not in timed} for row in metrics_of(path)]
        for path in (out, whole)
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["noise_scale.half_life=0 tokens"], "half_life: 0 tokens is no distance above 0"),
        (["noise_scale={}", "phases.0.batch.sequences=1"], "at least two sequences a step"),
        (["noise_scale={}", "phases.1.trainable=[embedding]"], "trains no norm layer"),
        (["noise_scale={estimator: ranks, calibrate: ranks}"], "only norm layers' noise scale"),
        (["noise_scale={estimator: microbatch, coverage: all}"], "takes all parameters anyhow"),
        (["noise_scale.estimator=microbatch"], "microbatch compares at least two of them"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    recipe_file: Path, tmp_path: Path, overrides: list[str], what: str
) -> None:
    with pytest.raises(UserError) as error:
        run(recipe_file, tmp_path / "run", *overrides)
    assert what in error.value.what
    assert "\n" not in error.value.what
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
