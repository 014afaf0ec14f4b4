"""Rates and initial values of LoRA's matrices: the rules, and their sizes over width and depth."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from feldspar.core.rows import Role
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import activate, add_low_rank, low_rank_layers, low_rank_names
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.optimizer import MuonSettings, OptimizerSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.train.optimizer import Optimizer

BASE = {"base_d_model": 32, "base_d_ff": 64}
LORA = LoraSettings(rank=4, alpha=4)
STEPS, VOCABULARY = 6, 64
WIDTHS, DEPTHS = (32, 64, 128), (2, 4, 8)
A, B = Role.LORA_A, Role.LORA_B


def model(width: int = 32, depth: int = 2) -> ModelSettings:
    shape = {"n_layers": depth, "d_model": width, "d_ff": 2 * width, "n_heads": width // 16}
    return ModelSettings.model_validate(
        shape | {"vocab_size": VOCABULARY, "max_sequence_length": 16, "tied_embeddings": False}
    )


def table_of(settings: ModelSettings, rules: dict[str, Any], *others: Any) -> ParametrizationTable:
    values = {"learning_rate": 0.02, "init_std": 0.1, "weight_decay_scaling": "width"} | rules
    if rules["type"] == "sp":
        values = {key: value for key, value in values.items() if key != "weight_decay_scaling"}
    else:
        values = BASE | values
    parametrization = ParametrizationSettings.model_validate(values)
    return table(parametrization, model_shapes(settings, lora=LORA), *others)


@pytest.mark.parametrize(
    ("rules", "std", "rates", "decays", "epsilons"),
    [
        ({"type": "sp"}, 1.0, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
        ({"type": "mup"}, 0.5, (0.25, 1.0), (4.0, 1.0), (1.0, 1.0)),
        ({"type": "supar", "base_density": 0.5}, 0.125**0.5, (0.125, 1.0), (4.0, 1.0), (1.0, 1.0)),
        (
            {"type": "completep", "base_n_layers": 1},
            0.5,
            (0.25, 1.0),
            (4.0, 1.0),
            (0.5, 0.125),
        ),
        (
            {"type": "completep", "base_n_layers": 1, "depth_exponent": 0.5},
            0.5,
            (0.25, 0.5**0.5),
            (4.0, 1.0),
            (0.5, 0.5**0.5 / 4),
        ),
    ],
    ids=["sp", "mup", "supar", "completep", "half a depth"],
)
def test_the_rules_of_the_table(
    rules: dict[str, Any],
    std: float,
    rates: tuple[float, float],
    decays: tuple[float, float],
    epsilons: tuple[float, float],
) -> None:
    """At four times the base's width, and twice its depth where depth counts."""
    found = table_of(model(width=128, depth=2), rules)
    for role, rate, decay, epsilon in zip((A, B), rates, decays, epsilons, strict=True):
        for entry in (entry for entry in found.tensors if entry.role is role):
            assert entry.init_std == pytest.approx(0.1 * std if role is A else 0.0)
            assert entry.learning_rate_multiplier == pytest.approx(rate)
            assert entry.weight_decay_multiplier == pytest.approx(decay)
            assert entry.epsilon_multiplier == pytest.approx(epsilon)


def test_muon_leaves_them_to_adamw() -> None:
    muon = MuonSettings(type="muon", learning_rate_ratio=7.0)
    found = table_of(model(), {"type": "mup"}, None, muon)
    assert {entry.rule.name for entry in found.tensors if entry.role in (A, B)} == {"adamw"}
    assert {e.learning_rate_multiplier for e in found.tensors if e.role in (A, B)} == {1.0}


def sizes(settings: ModelSettings, rules: ParametrizationTable) -> dict[str, float]:
    """Train the updates; return the mean sizes of their outputs, of the change of A's, and of the
    change of the residual stream."""
    decoder = Decoder(settings)
    add_low_rank(decoder, LORA)
    activate(decoder, True)
    groups = apply(decoder, rules, seed=5)
    trained = low_rank_names(decoder)
    groups = [
        replace(group, names=tuple(n for n, _ in kept), parameters=tuple(p for _, p in kept))
        for group in groups
        if (
            kept := [
                pair
                for pair in zip(group.names, group.parameters, strict=True)
                if pair[0] in trained
            ]
        )
    ]
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name in trained)
    optimizer = Optimizer(groups, OptimizerSettings(clip_norm="none"))
    optimizer.set_rates(rules.learning_rate, 0.0)
    chance = torch.Generator().manual_seed(9)
    tokens = torch.randint(0, VOCABULARY, (1, 5), generator=chance)
    before = observe(decoder, tokens)
    for _ in range(STEPS):
        decoder.loss(tokens[:, :-1], tokens[:, 1:])[0].div(tokens[:, 1:].numel()).backward()
        optimizer.step(optimizer.gradient_norm())
        optimizer.zero_gradients()
    after = observe(decoder, tokens)

    def mean(tensors: list[Tensor]) -> float:
        return float(torch.stack([tensor.abs().mean() for tensor in tensors]).mean())

    def change(key: str) -> float:
        return mean([now - then for now, then in zip(after[key], before[key], strict=True)])

    return {"update": mean(after["up"]), "change of A": change("down"), "stream": change("stream")}


@torch.no_grad()
def observe(decoder: Decoder, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Outputs of A and B in each layer, and the residual stream."""
    seen: dict[str, list[Tensor]] = {"down": [], "up": [], "stream": []}

    def keep(key: str) -> Any:
        return lambda module, inputs, output: seen[key].append(output)

    def keep_input(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen["stream"].append(inputs[0])

    handles = [decoder.final_norm.register_forward_pre_hook(keep_input)]
    for _, layer in low_rank_layers(decoder):
        handles.append(layer.lora_a.register_forward_hook(keep("down")))
        handles.append(layer.lora_b.register_forward_hook(keep("up")))
    decoder(tokens[:, :-1])
    for handle in handles:
        handle.remove()
    return seen


def powers(points: dict[int, dict[str, float]]) -> dict[str, float]:
    """The power of the model's size by which each quantity grows."""
    found = {}
    for key in next(iter(points.values())):
        xs = torch.tensor([math.log(size) for size in points])
        ys = torch.tensor([math.log(values[key]) for values in points.values()])
        xs = xs - xs.mean()
        found[key] = float((xs * ys).sum() / (xs * xs).sum())
    return found


def with_rates(found: ParametrizationTable, role: Role, factor: float) -> ParametrizationTable:
    return replace(
        found,
        tensors=tuple(
            replace(e, learning_rate_multiplier=e.learning_rate_multiplier * factor)
            if e.role is role
            else e
            for e in found.tensors
        ),
    )


TOLERANCE = 0.2
"""Powers of a right rule are this small; a wrong one changes a power by a half or more. Models of
this size are no limit of large ones: their powers differ from 0 by up to 0.1."""


def test_sizes_stay_over_width_and_other_rates_show() -> None:
    """The outputs of A and B neither grow nor fall, so all widths learn at the same rate."""
    right, a_unscaled, b_scaled = {}, {}, {}
    for width in WIDTHS:
        settings = model(width=width)
        found = table_of(settings, {"type": "mup"})
        right[width] = sizes(settings, found)
        a_unscaled[width] = sizes(settings, with_rates(found, A, width / 32))
        b_scaled[width] = sizes(settings, with_rates(found, B, 32 / width))
    for key, power in powers(right).items():
        assert abs(power) < TOLERANCE, key
    assert powers(a_unscaled)["change of A"] > 0.5
    assert powers(b_scaled)["update"] < -0.5


def test_one_factor_carries_the_rate_of_depth() -> None:
    """With branches divided by sqrt(L), updates of 1 / sqrt(L) change the stream by as much at
    every depth. Were the rate of A divided too, A would count less and less."""
    right, both = {}, {}
    for depth in DEPTHS:
        settings = model(depth=depth)
        rules = {"type": "completep", "base_n_layers": 2, "depth_exponent": 0.5}
        found = table_of(settings, rules)
        right[depth] = sizes(settings, found)
        both[depth] = sizes(settings, with_rates(found, A, (depth / 2) ** -0.5))
    found_powers = powers(right)
    assert abs(found_powers["update"] + 0.5) < TOLERANCE
    assert abs(found_powers["change of A"]) < TOLERANCE
    assert abs(found_powers["stream"]) < TOLERANCE
    assert powers(both)["change of A"] < -TOLERANCE
