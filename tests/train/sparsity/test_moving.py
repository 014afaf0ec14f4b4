"""Masks that move during training, against a plain loop that does the same by hand."""

from collections.abc import Iterator
from math import cos, floor, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import apply, parameter_groups
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.sections.sparsity import without_moves
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.moves import random_scores
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.data import open_shards, open_training_data
from feldspar.train.load import load_run, masks_of_checkpoint
from feldspar.train.moving_masks import MovingMasks
from feldspar.train.next_token import LanguageModelLoss
from feldspar.train.optimizer import Optimizer
from tests.train.conftest import metrics_of
from tests.train.sparsity.conftest import (
    DENSE_LATER,
    KEEP_ALL,
    SWITCH,
    checkpoint,
    drawn,
    forget_newest,
    recipe_of,
    run,
)

KEYS = "sparsity: 0.75, every: 2 steps, end: 100% of phase"
RIGL = f"phases.0.sparsity={{type: rigl, {KEYS}}}"
SET = f"phases.0.sparsity={{type: set, {KEYS}}}"
GRADUAL = (f"phases.0.sparsity={{type: gradual, {KEYS}}}", "parametrization.type=mup")
EVERY_STEP = ("checkpoints.every=1 steps", KEEP_ALL)


def masks_at(out: Path, step: int) -> Masks:
    saved = checkpoint(out, step)
    return masks_of_checkpoint(saved, load_run(out).recipe)


def by_hand(path: Path, *overrides: str) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Train the first phase with RigL in a plain loop; return weights and masks."""
    recipe = recipe_of(path, *overrides)
    plan, shards = plan_recipe(recipe), open_shards(recipe)
    reader = open_training_data(recipe, plan.timeline, shards).reader
    decoder = Decoder(recipe.model)
    apply(decoder, plan.table, recipe.seed)
    module = LanguageModelLoss(decoder, shards.vocab_size)
    masks = {name: mask.numpy() for name, mask in drawn(path, *overrides).tensors.items()}
    weights = dict(decoder.named_parameters())
    for name, mask in masks.items():
        weights[name].data *= torch.from_numpy(mask)
    optimizer = Optimizer(parameter_groups(decoder, plan.table), recipe.optimizer)
    position, steps, total = 0, 0, plan.timeline.phases[0].steps
    while (step := plan.timeline.next_step(position)) is not None and step.phase.index == 0:
        last = step.first_sequence + step.sequences
        batch = torch.from_numpy(reader.read(0, step.first_sequence, last).tokens)
        inputs, labels = batch[:, :-1].long(), batch[:, 1:].long()
        named = {f"decoder.{name}": parameter for name, parameter in weights.items()}
        loss = functional_call(module, named, (inputs, labels)) / labels.numel()
        loss.backward()
        dense = {name: weights[name].grad.numpy().copy() for name in masks}  # pyrefly: ignore
        for name, mask in masks.items():
            weights[name].grad *= torch.from_numpy(mask)
        optimizer.set_rates(step.learning_rate, step.weight_decay)
        optimizer.step(optimizer.gradient_norm())
        optimizer.zero_gradients()
        position, steps = step.position_after, steps + 1
        if steps % 2 == 0 and 0 < steps < total:
            fraction = 0.3 / 2 * (1 + cos(pi * steps / total))
            for name, mask in masks.items():
                kept, weight = mask.flatten(), weights[name].detach().numpy().reshape(-1)
                size, score = np.abs(weight), np.abs(dense[name].flatten())
                count = floor(fraction * kept.sum())
                ordered = np.argsort(np.where(kept, size, np.inf), kind="stable")
                dropped = ordered[:count]
                kept[dropped] = False
                grown = np.argsort(np.where(kept, np.inf, -score), kind="stable")[:count]
                kept[grown] = True
                state = optimizer.state()
                for changed in (dropped, grown):
                    weight[changed] = 0
                    for key in ("exp_avg", "exp_avg_sq"):
                        moments = state[f"{key}/{name}"]
                        assert isinstance(moments, Tensor)
                        moments.view(-1)[torch.from_numpy(changed)] = 0
                masks[name] = kept.reshape(mask.shape)
    return {name: tensor.detach() for name, tensor in weights.items()}, masks


def test_rigl_is_that_of_a_plain_loop(recipe_file: Path, tmp_path: Path) -> None:
    out, overrides = tmp_path / "run", (RIGL, "phases.0.batch.sequences=4")
    run(recipe_file, out, *overrides, *EVERY_STEP)
    weights, masks = by_hand(recipe_file, *overrides)
    position = plan_recipe(recipe_of(recipe_file, *overrides)).timeline.phases[0].end_position
    found = load_run(out, str(position))
    first = drawn(recipe_file, *overrides).tensors
    for name, mask in masks.items():
        assert np.array_equal(found.masks.tensors[name].numpy(), mask), name
        assert not np.array_equal(first[name].numpy(), mask), "they have moved"
    for name, parameter in found.decoder.named_parameters():
        assert torch.equal(parameter, weights[name]), name


@pytest.mark.parametrize("moving", [RIGL, SET], ids=["rigl", "set"])
def test_counts_zeros_and_moments(recipe_file: Path, tmp_path: Path, moving: str) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, moving, *EVERY_STEP)
    first = drawn(recipe_file, moving)
    before = first
    records = metrics_of(out)
    for step in range(1, 13):
        masks = masks_at(out, step)
        moved = step in (2, 4, 6)
        assert (digest_of_masks(masks) != digest_of_masks(before)) is moved, step
        assert ("masks/dropped" in records[step - 1]) is moved
        state, moments = (
            checkpoint(out, step).read_model(),
            checkpoint(out, step).files_of("optimizer"),
        )
        grown = 0
        for name, mask in masks.tensors.items():
            assert int(mask.sum()) == int(first.tensors[name].sum())
            new = mask & ~before.tensors[name]
            for tensor in (
                state[name],
                moments[f"exp_avg/{name}"],
                moments[f"exp_avg_sq/{name}"],
            ):
                assert not tensor[~mask].any()
                assert not tensor[new].any()
            grown += int(new.sum())
            if masks.ever:
                assert bool(masks.ever[name][mask | before.tensors[name]].all())
        if moved:
            record = records[step - 1]
            assert record["masks/dropped"] == record["masks/grown"] >= grown > 0
            assert record["masks/density"] == pytest.approx(0.25)
            ever = sum(int(mask.sum()) for mask in masks.ever.values())
            assert record["masks/ever_active"] == ever / (8 * 2048)
        before = masks


def test_pruning_reaches_its_sparsity_by_a_cube(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, *GRADUAL, *EVERY_STEP)
    kept = []
    before: dict[str, Tensor] = {}
    for step in range(1, 13):
        masks = masks_at(out, step)
        assert not any(
            bool((mask & ~before.get(n, mask)).any()) for n, mask in masks.tensors.items()
        )
        assert not any(
            checkpoint(out, step).read_model()[n][~m].any() for n, m in masks.tensors.items()
        )
        before = dict(masks.tensors)
        kept.append(sum(int(mask.sum()) for mask in before.values()) / (8 * 2048))
    shares = [1 - 0.75 * (1 - (1 - step / 8) ** 3) for step in (0, 2, 4, 6, 8)]
    expected = [shares[min(step // 2, 4)] for step in range(1, 13)]
    assert kept == pytest.approx(expected, abs=1 / 2048)
    assert kept[-1] == 0.25


@pytest.mark.parametrize("moving", [RIGL, SET, GRADUAL[0]], ids=["rigl", "set", "gradual"])
def test_a_resumed_run_moves_the_same_masks(recipe_file: Path, tmp_path: Path, moving: str) -> None:
    out, overrides = tmp_path / "run", (moving, "parametrization.type=mup", *EVERY_STEP)
    whole = run(recipe_file, out, *overrides)
    expected = {step: digest_of_masks(masks_at(out, step)) for step in (3, 4, 5, 8, 12)}
    for last in (8, 3):  # the end of the phase, and a step between two moves
        while checkpoint(out).position > last * 128:
            forget_newest(out)
        assert run(recipe_file, out, *overrides) == whole
        assert {s: digest_of_masks(masks_at(out, s)) for s in expected} == expected
        assert load_run(out).masks.ever.keys() == masks_at(out, 5).ever.keys()


def test_only_steps_that_grow_by_gradients_need_dense_ones(recipe_file: Path) -> None:
    recipe = recipe_of(recipe_file, RIGL)
    plan = plan_recipe(recipe)
    steps = [plan.timeline.next_step(128 * step) for step in range(10)]
    moving = MovingMasks(plan)
    due = [moving.needs_dense_gradient(step) for step in steps if step is not None]
    assert due == [False, True, False, True, False, True, *[False] * 4]


def test_later_phases_keep_prune_or_drop_masks(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, RIGL, *EVERY_STEP)
    recipe = load_run(out).recipe
    assert recipe.sparsity(0) != recipe.sparsity(1) == without_moves(recipe.sparsity(0))
    # A dense phase after it revives entries from zero.
    dropped = tmp_path / "dropped"
    run(recipe_file, dropped, RIGL, *DENSE_LATER)
    assert load_run(dropped).masks.tensors == {}
    # A new run takes the masks that have moved, and they stay.
    start, second = f"start_from={{type: run, path: {out}}}", tmp_path / "second"
    run(recipe_file, second, start)
    assert digest_of_masks(load_run(second).masks) == digest_of_masks(load_run(out).masks)
    assert load_run(second).recipe.sparsity(0).type == "static"
    # Or they move on.
    third = tmp_path / "third"
    run(recipe_file, third, start, SET)
    assert digest_of_masks(load_run(third).masks) != digest_of_masks(load_run(out).masks)
    assert load_run(third).masks.settings.type == "set"


def test_grown_entries_follow_the_seed_of_the_masks(recipe_file: Path, tmp_path: Path) -> None:
    own, out = "phases.0.sparsity.seed=7", tmp_path / "run"
    run(recipe_file, out, SET, own, *EVERY_STEP)
    before, after = drawn(recipe_file, SET, own), masks_at(out, 2)
    assert before.seed == after.seed == 7
    for name, mask in before.tensors.items():
        scores = random_scores((mask.shape[0], mask.shape[1]), (1, 1), 7, name, 2 * 128)
        grown, left = after.tensors[name] & ~mask, ~after.tensors[name] & ~mask
        assert scores[grown].min() > scores[left].max()


def test_pruning_of_a_dense_phase(recipe_file: Path, tmp_path: Path) -> None:
    later = f"phases.1.sparsity={{type: gradual, {KEYS}}}"
    out = tmp_path / "run"
    losses = run(recipe_file, out, later, "parametrization.type=mup", *EVERY_STEP)
    dense = run(recipe_file, tmp_path / "dense", "parametrization.type=mup")
    assert losses[: SWITCH + 2] == dense[: SWITCH + 2]
    masks = load_run(out).masks
    assert {float(mask.sum()) / mask.numel() for mask in masks.tensors.values()} == {0.25}
    for refused, message in (
        ((later.replace("gradual", "rigl"),), "phases.1.sparsity: a later phase can only"),
        (("phases.1.sparsity.initial_sparsity=0.5",), "initial_sparsity: the phase before is de"),
        (("phases.1.sparsity.end=0 steps",), "phases.1.sparsity.end: it must lie after begin"),
        (("phases.1.sparsity.end=5 steps",), "phases.1.sparsity.end: it must lie after begin"),
    ):
        with pytest.raises(UserError, match=message):
            run(recipe_file, out, "parametrization.type=mup", later, *refused)


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
def test_accumulation_grows_the_same_entries(recipe_file: Path, tmp_path: Path) -> None:
    ends = []
    for sequences in (8, 1):
        out = tmp_path / str(sequences)
        run(recipe_file, out, RIGL, f"runtime.micro_batch_sequences={sequences}", *EVERY_STEP)
        ends.append((checkpoint(out, SWITCH).read_model(), masks_at(out, SWITCH)))
    (whole, masks), (split, same) = ends
    assert digest_of_masks(masks) == digest_of_masks(same)
    for name in whole:
        assert whole[name].dtype == torch.float64
        # Sums of 128 terms in another order, after 8 updates by 1e-2 and less.
        assert (whole[name] - split[name]).abs().max() < 1e-12, name


def test_a_step_that_is_not_finite_moves_nothing(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    skip = "runtime.on_non_finite={type: skip, up_to: 20}"
    run(recipe_file, out, RIGL, "parametrization.learning_rate=1e30", skip)
    assert digest_of_masks(masks_at(out, SWITCH)) == digest_of_masks(drawn(recipe_file, RIGL))
    assert not any("masks/dropped" in record for record in metrics_of(out))


BLOCKS = ", block: [4, 2]}"


@pytest.mark.parametrize("moving", [RIGL, SET, GRADUAL[0]], ids=["rigl", "set", "gradual"])
def test_whole_blocks_move(recipe_file: Path, tmp_path: Path, moving: str) -> None:
    out, moving = tmp_path / "run", moving[:-1] + BLOCKS
    run(recipe_file, out, moving, "parametrization.type=mup", *EVERY_STEP)
    first = drawn(recipe_file, moving, "parametrization.type=mup")
    last = load_run(out).masks
    assert digest_of_masks(first) != digest_of_masks(last)
    for mask in last.tensors.values():
        blocks = mask.unflatten(0, (-1, 4)).unflatten(2, (-1, 2)).sum((1, 3))
        assert set(blocks.unique().tolist()) == {0, 8}
        assert int(mask.sum()) == mask.numel() // 4


def test_frozen_matrices_keep_their_masks(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = "phases.0.trainable=[embedding, output, position, '*attention.output.weight']"
    run(recipe_file, out, RIGL, trained)
    first, last = drawn(recipe_file, RIGL), load_run(out).masks
    for name, mask in last.tensors.items():
        assert torch.equal(mask, first.tensors[name]) is ("attention.output" not in name), name


def test_muon_begins_new_entries_without_momentum(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    muon = "optimizer={type: muon, learning_rate_ratio: 2.0}"
    run(recipe_file, out, RIGL, muon, *EVERY_STEP)
    before, after = masks_at(out, 3), masks_at(out, 4)
    weights, state = checkpoint(out, 4).read_model(), checkpoint(out, 4).files_of("optimizer")
    for name, mask in after.tensors.items():
        new = mask & ~before.tensors[name]
        for tensor in (weights[name], state[f"momentum_buffer/{name}"]):
            assert bool(new.any()) and not tensor[new].any()
            assert not tensor[~mask].any() and bool(tensor[mask & ~new].any())


def test_masks_of_a_pruned_run_stay(recipe_file: Path, tmp_path: Path) -> None:
    out, second = tmp_path / "run", tmp_path / "second"
    run(recipe_file, out, *GRADUAL, *EVERY_STEP)
    start = f"start_from={{type: run, path: {out}}}"
    run(recipe_file, second, start, "parametrization.type=mup")
    assert digest_of_masks(load_run(second).masks) == digest_of_masks(load_run(out).masks)
    early = start.replace("}", f", checkpoint: '{4 * 128}'}}")
    with pytest.raises(UserError, match=r"start_from: the pruning of .* is not finished"):
        run(recipe_file, tmp_path / "third", early, "parametrization.type=mup")


@pytest.mark.parametrize("noise", ["coverage: all", "estimator: microbatch"])
def test_the_noise_scale_follows_the_masks(recipe_file: Path, tmp_path: Path, noise: str) -> None:
    out = tmp_path / "run"
    overrides = (RIGL, f"noise_scale={{{noise}}}", "runtime.micro_batch_sequences=2", *EVERY_STEP)
    run(recipe_file, out, *overrides)
    whole = metrics_of(out)
    while checkpoint(out).position > 4 * 128:  # the move at step 4 is made
        forget_newest(out)
    run(recipe_file, out, *overrides)
    for before, after in zip(whole, metrics_of(out), strict=True):
        for key in ("noise_scale/total/noise", "noise_scale/total/signal_sq"):
            assert before[key] == after[key]
