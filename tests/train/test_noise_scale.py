"""The noise scale measured in a run: against single backward passes; it changes nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.statistics import Moments
from feldspar.recipe.load import load_recipe
from feldspar.runtime.distributed import Distribution
from feldspar.train.lifecycle import open_run
from feldspar.train.load import load_run
from feldspar.train.run import Inputs, begin_training, train
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
    opened, distribution = Inputs.open(loaded), Distribution.start(loaded.recipe.runtime)
    with open_run(opened.loaded, opened.plan.timeline, folder, overwrite=False) as run:
        trainer = begin_training(opened, run, distribution)
    task = trainer.task
    step = opened.plan.timeline.next_step(0)
    assert step is not None
    task.batches.prefetch(step)
    [(inputs, labels)] = task.batches.take()
    squares = {"total": 0.0, "norm": 0.0}
    whole: dict[str, torch.Tensor] = {}
    for row in range(len(inputs)):
        loss = task.module(inputs[row : row + 1], labels[row : row + 1])
        (loss / labels.numel()).backward()
        for name, parameter in task.model.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            for group in squares:
                squares[group] += belongs(name, group) * float(gradient.double().square().sum())
            whole[name] = whole.get(name, torch.zeros(())) + gradient.double()
        trainer.optimizer.zero_gradients()
    task.batches.close()
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
        (["noise_scale.half_life=0 tokens"], "half_life: the distance 0 tokens must be above 0"),
        (["noise_scale={}", "phases.0.batch.sequences=1"], "at least two sequences a step"),
        (["noise_scale={}", "phases.1.trainable=[embedding, output]"], "trains no norm layer"),
        (["noise_scale={estimator: ranks, calibrate: ranks}"], "only a noise scale of norm layers"),
        (["noise_scale={estimator: microbatch, coverage: all}"], "always measures all parameters"),
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


def test_masked_entries_count_in_neither_estimator(recipe_file: Path, tmp_path: Path) -> None:
    sparse = (
        "parametrization.type=supar",
        "phases.0.sparsity={type: static, sparsity: 0.5}",
        "runtime.micro_batch_sequences=1",
    )
    run(recipe_file, tmp_path / "examples", *sparse, "noise_scale.coverage=all")
    run(recipe_file, tmp_path / "groups", *sparse, "noise_scale.estimator=microbatch")
    pairs = zip(metrics_of(tmp_path / "examples"), metrics_of(tmp_path / "groups"), strict=True)
    # A micro-batch of one sequence is an example: two ways to the same moments.
    for examples, groups in list(pairs)[:6]:
        scale = examples["noise_scale/total/noise"]
        for key in ("noise_scale/total/noise", "noise_scale/total/signal_sq"):
            assert groups[key] == pytest.approx(examples[key], rel=1e-3, abs=1e-4 * scale)


def test_low_precision_and_steps_left_out(recipe_file: Path, tmp_path: Path) -> None:
    wide, low = tmp_path / "wide", tmp_path / "low"
    every = "noise_scale={coverage: all, every: 256 tokens}"
    run(recipe_file, wide, every)
    run(recipe_file, low, every, "runtime.precision=bfloat16")
    pairs = list(zip(metrics_of(wide), metrics_of(low), strict=True))
    # Steps of 128 tokens: each second one is measured, and the last of a phase.
    assert ["noise_scale/total/noise" in one for one, _ in pairs[:4]] == [False, True, False, True]
    first, rough = pairs[1]
    assert rough["noise_scale/total/noise"] == pytest.approx(
        first["noise_scale/total/noise"], rel=0.05
    )


def test_a_step_that_is_not_finite_counts_for_nothing(recipe_file: Path, tmp_path: Path) -> None:
    run(
        recipe_file,
        tmp_path / "run",
        "noise_scale.coverage=all",
        "parametrization.learning_rate=1e38",
        "optimizer.clip_norm=none",
        "runtime.on_non_finite={type: skip, up_to: 100}",
        "evaluation.every=1000000 tokens",
    )
    records = metrics_of(tmp_path / "run")
    bad = [row for row in records if row["gradient_norm"] == "NaN"]
    assert bad
    before = records[records.index(bad[0]) - 1]
    for row in bad:
        # Time passes for noise and signal alike: their ratio stays but for rounding.
        assert row["noise_scale/total"] == pytest.approx(before["noise_scale/total"], rel=1e-9)
        assert "noise_scale/total/noise" not in row


@pytest.mark.slow
def test_compiled_blocks_measure_the_same(recipe_file: Path, tmp_path: Path) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    run(recipe_file, plain, "noise_scale={}")
    run(recipe_file, compiled, "noise_scale={}", "runtime.compile=true")
    for one, other in list(zip(metrics_of(plain), metrics_of(compiled), strict=True))[:4]:
        scale = one["noise_scale/norm/noise"]
        for key in ("noise_scale/norm/noise", "noise_scale/norm/signal_sq"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4 * scale)
