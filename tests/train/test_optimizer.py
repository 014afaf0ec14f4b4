"""The first update of AdamW by hand: each group's epsilon, from the table to the optimizer."""

import pytest
import torch
from torch import nn

from feldspar.model.decoder import Decoder
from feldspar.model.settings import ModelSettings
from feldspar.model.shapes import model_shapes
from feldspar.parametrization.application import ParameterGroup, apply
from feldspar.parametrization.settings import ParametrizationSettings
from feldspar.parametrization.tables import table
from feldspar.train.optimizer import Optimizer
from feldspar.train.settings import OptimizerSettings

RATE = 0.5
SETTINGS = OptimizerSettings(epsilon=1e-4, weight_decay=0.0, clip_norm="none")


def test_each_group_has_its_own_epsilon() -> None:
    groups = [
        ParameterGroup((f"p{n}",), (nn.Parameter(torch.zeros(3)),), 1.0, 0.0, multiplier)
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
    entries = table(parametrization, model_shapes(settings))
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
