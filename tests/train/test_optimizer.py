"""The first update of AdamW by hand: each group's epsilon, from the table to the optimizer."""

import pytest
import torch
from torch import nn

from feldspar.core.rows import ParameterRow, Role
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import ParameterGroup, apply
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.optimizer import (
    MuonSettings,
    OptimizerSettings,
    RmsPropSettings,
    SgdSettings,
    UpdateRule,
)
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.train.optimizer import AnyOptimizer, Optimizer

RATE = 0.5
SETTINGS = OptimizerSettings(epsilon=1e-4, weight_decay=0.0, clip_norm="none")


VECTOR = ParameterRow("p", Role.NORM, (7,))


def rule_of(settings: AnyOptimizer) -> UpdateRule:
    """Return the rule of a vector."""
    if isinstance(settings, OptimizerSettings | MuonSettings):
        return settings.rule(VECTOR)
    return settings.only_rule


def test_each_group_has_its_own_epsilon() -> None:
    rule = rule_of(SETTINGS)
    groups = [
        ParameterGroup((f"p{n}",), (nn.Parameter(torch.zeros(3)),), 1.0, 0.0, multiplier, rule)
        for n, multiplier in enumerate((1.0, 0.25, 4.0))
    ]
    optimizer = Optimizer(groups, SETTINGS)
    optimizer.set_rates(RATE, 0.0)
    gradient = torch.tensor([1e-4, -2e-4, 1.0])
    for group in groups:
        group.parameters[0].grad = gradient.clone()
    optimizer.step(optimizer.gradient_norm())
    for group in groups:
        # Both moments are free of their bias after one step: g / (|g| + epsilon).
        epsilon = SETTINGS.epsilon * group.epsilon_multiplier
        expected = -RATE * gradient / (gradient.abs() + epsilon)
        torch.testing.assert_close(group.parameters[0].detach(), expected, rtol=1e-5, atol=0)


def test_the_epsilons_of_a_table_reach_the_update() -> None:
    settings = ModelSettings(
        n_layers=1, d_model=32, n_heads=2, d_ff=32, vocab_size=20, max_sequence_length=8
    )
    parametrization = ParametrizationSettings(
        type="mup", base_d_model=16, base_d_ff=16, learning_rate=RATE, epsilon_scaling="width"
    )
    entries = table(parametrization, model_shapes(settings), optimizer=SETTINGS)
    decoder = Decoder(settings)
    groups = apply(decoder, entries, seed=0)
    multipliers = {entry.name: entry for entry in entries.tensors}
    assert {entry.epsilon_multiplier for entry in entries.tensors} == {0.5, 1.0}
    before = {name: value.detach().clone() for name, value in decoder.named_parameters()}
    optimizer = Optimizer(groups, SETTINGS)
    optimizer.set_rates(RATE, 0.0)
    for value in decoder.parameters():
        value.grad = torch.full_like(value, SETTINGS.epsilon)
    optimizer.step(optimizer.gradient_norm())
    for name, value in decoder.named_parameters():
        entry = multipliers[name]
        # A gradient as large as the base epsilon: 1 / (1 + multiplier) of a full step.
        step = RATE * entry.learning_rate_multiplier / (1 + entry.epsilon_multiplier)
        moved = (before[name] - value.detach()).mean().item()
        assert moved == pytest.approx(step, rel=1e-4), name


OPTIMIZERS: dict[str, AnyOptimizer] = {
    "adamw": OptimizerSettings(epsilon=1e-8, weight_decay=0.1, clip_norm=1.0),
    "sgd": SgdSettings(type="sgd", momentum=0.9),
    "sgd without momentum": SgdSettings(type="sgd", momentum=0.0),
    "rmsprop": RmsPropSettings(type="rmsprop", momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_state_to_the_same_bits(kind: str) -> None:
    def made(values: torch.Tensor) -> tuple[nn.Parameter, Optimizer]:
        parameter = nn.Parameter(values.clone())
        settings = OPTIMIZERS[kind]
        group = ParameterGroup(("p",), (parameter,), 1.0, 1.0, 1.0, rule_of(settings))
        return parameter, Optimizer([group], settings)

    def update(parameter: nn.Parameter, optimizer: Optimizer, step: int) -> None:
        optimizer.set_rates(0.1 / (step + 1), 0.01)
        parameter.grad = torch.sin(parameter.detach() * (step + 1))
        optimizer.step(optimizer.gradient_norm())
        optimizer.zero_gradients()

    parameter, optimizer = made(torch.linspace(-1, 1, 7))
    for step in range(3):
        update(parameter, optimizer, step)
    saved = {name: value.clone() for name, value in optimizer.state().items()}
    resumed, other = made(parameter.detach())
    assert saved.keys() == other.state().keys()
    for name, value in other.state().items():
        value.copy_(saved[name])
    for step in range(3, 6):
        update(parameter, optimizer, step)
        update(resumed, other, step)
        assert torch.equal(parameter, resumed)
    assert all(torch.equal(value, other.state()[name]) for name, value in optimizer.state().items())
