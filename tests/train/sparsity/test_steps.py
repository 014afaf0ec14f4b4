"""Masks in training: zeros in weights and moments, bit for bit as with weights times masks."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import apply, parameter_groups
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.data import open_shards, open_training_data
from feldspar.train.load import load_run
from feldspar.train.next_token import LanguageModelLoss
from feldspar.train.optimizer import Optimizer
from tests.train.conftest import losses_of, metrics_of
from tests.train.sparsity.conftest import SPARSE, assert_zeros, checkpoint, drawn, recipe_of, run


def test_zeros_stay_zeros_in_weights_and_moments(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, SPARSE, "optimizer.weight_decay=0.5", "optimizer.clip_norm=0.2")
    assert losses[-1] < losses[0]
    assert min(record["gradient_norm"] for record in metrics_of(out)) > 0.2, "always clipped"
    masks = drawn(recipe_file, SPARSE)
    assert_zeros(checkpoint(out).read_model(), masks)
    moments = load_file(checkpoint(out).folder / "optimizer.safetensors")
    assert_zeros(moments, masks, "exp_avg/")
    assert_zeros(moments, masks, "exp_avg_sq/")


def test_what_a_loaded_run_knows(recipe_file: Path, sparse_run: Path) -> None:
    loaded, masks = load_run(sparse_run), drawn(recipe_file, SPARSE)
    assert digest_of_masks(loaded.masks) == digest_of_masks(masks)
    assert loaded.masks.settings == masks.settings and loaded.masks.seed == 3
    assert_zeros(dict(loaded.decoder.named_parameters()), loaded.masks)
    started = json.loads((sparse_run / "events.jsonl").read_text().splitlines()[0])["masks"]
    assert started["sha256"] == digest_of_masks(masks)
    assert started["kept"] == started["entries"] / 4 == 2 * 2048
    assert started["units"] == 2 * (64 + 32)
    packed = load_file(checkpoint(sparse_run).folder / "tensors.safetensors")
    assert sum(bits.numel() for bits in packed.values()) == started["entries"] / 8


def test_no_sparsity_changes_no_bit(recipe_file: Path, tmp_path: Path) -> None:
    dense = run(recipe_file, tmp_path / "dense")
    assert dense == run(recipe_file, tmp_path / "zero", SPARSE.replace("0.75", "0"))
    assert load_run(tmp_path / "zero").masks.tensors == {}
    moving = "phases.0.sparsity={type: rigl, sparsity: 0, every: 2 steps}"
    assert dense == run(recipe_file, tmp_path / "moving", moving)
    assert not (checkpoint(tmp_path / "dense").folder / "tensors.safetensors").exists()


Update = Callable[[dict[str, Tensor], float, float], None]


def reparametrised(plan: Plan, masks: Masks, make_update: Callable[[Decoder], Update]) -> Decoder:
    """A run whose forward pass multiplies dense weights by their masks; the chain rule does the
    rest. Returns the decoder with the dense weights."""
    recipe = plan.recipe
    shards = open_shards(recipe)
    reader = open_training_data(recipe, plan.timeline, shards).reader
    decoder = Decoder(recipe.model)
    apply(decoder, plan.table, recipe.seed)
    module = LanguageModelLoss(decoder, shards.vocab_size)
    update = make_update(decoder)
    tokens = 0
    while (step := plan.timeline.next_step(tokens)) is not None:
        last = step.first_sequence + step.sequences
        batch = torch.from_numpy(reader.read(step.phase.index, step.first_sequence, last).tokens)
        inputs, labels = batch[:, :-1].long(), batch[:, 1:].long()
        used = {
            f"decoder.{name}": parameter * masks.tensors[name]
            if name in masks.tensors
            else parameter
            for name, parameter in decoder.named_parameters()
        }
        loss = functional_call(module, used, (inputs, labels)) / labels.numel()
        decoder.zero_grad()
        loss.backward()
        gradients = {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}
        update(gradients, step.learning_rate, step.weight_decay)
        tokens = step.position_after
    return decoder


def by_hand(plan: Plan, decoder: Decoder) -> Update:
    """AdamW and clipping as their papers write them."""
    settings, table = plan.recipe.optimizer, plan.table
    assert settings.clip_norm != "none"
    limit = settings.clip_norm
    beta1, beta2 = settings.betas
    parameters = dict(decoder.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    steps = 0

    @torch.no_grad()
    def update(gradients: dict[str, Tensor], rate: float, decay: float) -> None:
        nonlocal steps
        steps += 1
        norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, limit / (float(norm) + 1e-6))
        for name, gradient in gradients.items():
            entry = table.entry(name)
            own = rate * entry.learning_rate_multiplier
            parameters[name] *= 1 - own * decay * entry.weight_decay_multiplier
            first[name] = beta1 * first[name] + (1 - beta1) * scale * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * (scale * gradient) ** 2
            mean, square = first[name] / (1 - beta1**steps), second[name] / (1 - beta2**steps)
            root = square.sqrt() + settings.epsilon * entry.epsilon_multiplier
            parameters[name] -= own * mean / root

    return update


def by_our_optimizer(plan: Plan, decoder: Decoder) -> Update:
    optimizer = Optimizer(parameter_groups(decoder, plan.table), plan.recipe.optimizer)

    def update(gradients: dict[str, Tensor], rate: float, decay: float) -> None:
        optimizer.set_rates(rate, decay)
        optimizer.step(optimizer.gradient_norm())

    return update


REFERENCE = (
    SPARSE,
    "phases.0.batch.sequences=4",
    "phases.1.documents=concatenate",
    "optimizer.clip_norm=0.3",
    "optimizer.epsilon=1e-5",
)


def test_masked_gradients_are_those_of_masked_weights(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, *REFERENCE)
    assert min(record["gradient_norm"] for record in metrics_of(out)) > 0.3, "always clipped"
    found = dict(load_run(out).decoder.named_parameters())
    plan = plan_recipe(recipe_of(recipe_file, *REFERENCE))
    masks = drawn(recipe_file, *REFERENCE)
    for reference in (by_hand, by_our_optimizer):
        decoder = reparametrised(plan, masks, partial(reference, plan))
        expected = dict(decoder.named_parameters())
        for name, parameter in found.items():
            wanted = expected[name]
            if name in masks.tensors:
                assert bool((wanted[~masks.tensors[name]] != 0).all()), "dense under the mask"
                wanted = wanted * masks.tensors[name]
            if reference is by_our_optimizer:
                assert torch.equal(parameter, wanted), name
            else:
                # float32 after 12 updates of up to 2e-2 each, rounded in another order.
                assert (parameter - wanted).abs().max() < 1e-5, name


def test_accumulation_changes_only_rounding(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split"
    losses = run(recipe_file, split, SPARSE, "runtime.micro_batch_sequences=3")
    assert losses == pytest.approx(losses_of(sparse_run), rel=2e-5)
    assert_zeros(checkpoint(split).read_model(), drawn(recipe_file, SPARSE))


def test_bfloat16_keeps_zeros(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "runtime.precision=bfloat16")
    assert_zeros(checkpoint(out).read_model(), drawn(recipe_file, SPARSE))


@pytest.mark.slow
def test_compiled_blocks_keep_zeros(recipe_file: Path, sparse_run: Path, tmp_path: Path) -> None:
    compiled = run(recipe_file, tmp_path / "compiled", SPARSE, "runtime.compile=true")
    assert compiled == pytest.approx(losses_of(sparse_run), rel=1e-4)
    assert_zeros(checkpoint(tmp_path / "compiled").read_model(), drawn(recipe_file, SPARSE))
