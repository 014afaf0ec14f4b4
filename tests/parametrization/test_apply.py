"""The table applied to modules: initial values, groups, multipliers, and the exact symmetry."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, ParameterRole, Role
from feldspar.model import Decoder, ModelSettings, model_shapes, module_rows
from feldspar.parametrization import (
    ParameterGroup,
    ParametrizationTable,
    TensorEntry,
    apply,
    parameter_groups,
    table,
)
from feldspar.parametrization.application import initial_values, initialise
from feldspar.parametrization.settings import ParametrizationSettings


def decoder_settings(**changes: object) -> ModelSettings:
    values = {
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 2,
        "d_ff": 64,
        "vocab_size": 40,
        "max_sequence_length": 16,
    }
    return ModelSettings.model_validate(values | changes)


MUP = ParametrizationSettings(
    type="mup", base_d_model=16, base_d_ff=16.0, init_std=0.08, learning_rate=1e-2
)


def decoder_table(settings: ModelSettings) -> ParametrizationTable:
    return table(MUP, model_shapes(settings))


@pytest.mark.parametrize(
    "settings",
    [
        decoder_settings(),
        decoder_settings(tied_embeddings=False, bias=False),
        decoder_settings(positions={"type": "rotary"}, norm={"type": "rms"}, feed_forward="swiglu"),
        decoder_settings(positions={"type": "alibi"}, n_kv_heads=1),
    ],
)
def test_groups_cover_each_trained_parameter_once(settings: ModelSettings) -> None:
    model = Decoder(settings)
    frozen = model.token_embedding.weight.requires_grad_(False)
    groups = apply(model, decoder_table(settings), seed=0)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(
        name for name, parameter in model.named_parameters() if parameter is not frozen
    )
    grouped = [parameter for group in groups for parameter in group.parameters]
    assert len({id(parameter) for parameter in grouped}) == len(grouped) == len(names)
    keys = {
        (group.learning_rate_multiplier, group.weight_decay_multiplier, group.epsilon_multiplier)
        for group in groups
    }
    assert len(keys) == len(groups)
    assert {group.learning_rate_multiplier for group in groups} == {1, 1 / 2, 1 / 4}


def test_multipliers_reach_the_modules() -> None:
    settings = decoder_settings()
    model = Decoder(settings)
    changes = {"embedding_multiplier": 3.0, "output_multiplier": 5.0, "attention_multiplier": 7.0}
    found = table(MUP.model_copy(update=changes), model_shapes(settings))
    apply(model, found, seed=0)
    assert model.embedding_multiplier == 3
    assert model.output_multiplier == 5 / 2
    block = model.blocks[0]
    assert block.residual_multiplier == 1
    assert 7 / 16 in vars(block.attention).values()


def test_initial_values_depend_on_no_other_tensor() -> None:
    small, large = decoder_settings(n_layers=1), decoder_settings(n_layers=2)
    models = [Decoder(small), Decoder(large)]
    plain = MUP.model_copy(update={"block_output_init_std": 0.1})
    torch.manual_seed(1)
    initialise(models[0], table(plain, model_shapes(small)), seed=3)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    initialise(models[1], table(plain, model_shapes(large)), seed=3)
    assert torch.equal(torch.random.get_rng_state(), before), "no global seed is used"
    others = dict(models[1].named_parameters())
    for name, parameter in models[0].named_parameters():
        assert torch.equal(parameter, others[name]), name
    initialise(models[1], table(plain, model_shapes(large)), seed=4)
    assert not torch.equal(models[0].token_embedding.weight, others["token_embedding.weight"])


def entry(shape: tuple[int, ...], std: float, mean: float = 0.0) -> TensorEntry:
    return TensorEntry("some.weight", Role.HIDDEN, shape, 1.0, std, mean, 1, 1, 1)


@pytest.mark.parametrize(("std", "mean"), [(0.02, 0.0), (3.0, 0.0), (0.5, 10.0)])
def test_a_truncated_normal_is_cut_at_two_standard_deviations(std: float, mean: float) -> None:
    values = initial_values(entry((400, 500), std, mean), "truncated_normal", seed=0) - mean
    assert values.abs().max() <= 2 * std * (1 + 1e-5)  # float32 rounding of mean + value
    assert values.abs().max() > 1.99 * std
    # The standard deviation of the cut normal; its relative error with 2e5 draws is 0.0014.
    assert values.std().item() == pytest.approx(0.879626 * std, rel=0.01)
    assert values.mean().item() == pytest.approx(0, abs=0.02 * std)


def test_a_normal_is_not_cut() -> None:
    values = initial_values(entry((400, 500), 0.5), "normal", seed=0)
    assert values.abs().max() > 4 * 0.5
    assert values.std().item() == pytest.approx(0.5, rel=0.01)


def test_gains_are_one_and_biases_zero() -> None:
    settings = decoder_settings()
    model = Decoder(settings)
    apply(model, decoder_table(settings), seed=0)
    assert torch.equal(model.final_norm.weight, torch.ones(32))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()


class OwnBlock(nn.Module):
    """A part of somebody's own network."""

    is_residual_block = True
    parameter_roles: ClassVar = {"scale": ParameterRole(Role.NORM, initial_mean=1.0)}
    forward_multipliers: ClassVar = {"factor": "residual"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = 0.0
        self.scale = nn.Parameter(torch.empty(width))
        self.inner = OwnLinear(width, Role.HIDDEN)


class OwnLinear(nn.Module):
    """A matrix of a given role."""

    def __init__(self, width: int, role: Role) -> None:
        super().__init__()
        self.parameter_roles = {"matrix": ParameterRole(role, writes_residual=True)}
        self.matrix = nn.Parameter(torch.empty(width, width))


class OwnModel(nn.Module):
    """Somebody's own network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = OwnBlock(width)
        self.head = OwnLinear(width, Role.OUTPUT)


def own_shapes(model: OwnModel) -> ModelShapes:
    return ModelShapes(d_model=32, d_ff=32, n_layers=1, head_dim=8, rows=module_rows(model))


def test_somebodys_own_module() -> None:
    model = OwnModel(32)
    found = table(MUP, own_shapes(model))
    groups = apply(model, found, seed=0)
    assert {name: group.learning_rate_multiplier for group in groups for name in group.names} == {
        "block.scale": 1,
        "block.inner.matrix": 1 / 2,
        "head.matrix": 1,
    }
    assert model.block.factor == 1
    assert torch.equal(model.block.scale, torch.ones(32))
    std = 0.08 / (2 * 2) ** 0.5
    assert model.block.inner.matrix.std().item() == pytest.approx(std, rel=0.1)  # 1024 draws


def test_a_parameter_without_a_role_is_an_error() -> None:
    model = OwnModel(32)
    model.block.register_parameter("stray", nn.Parameter(torch.zeros(2)))
    with pytest.raises(UserError, match=r"block\.stray belongs to no role"):
        module_rows(model)


def test_a_parameter_without_a_row_is_an_error() -> None:
    model = OwnModel(32)
    found = table(MUP, own_shapes(model))
    model.block.register_parameter("stray", nn.Parameter(torch.zeros(2)))
    for call in (lambda: apply(model, found, 0), lambda: parameter_groups(model, found)):
        with pytest.raises(UserError, match=r"block\.stray stands in no row"):
            call()


def test_a_row_of_another_shape_is_an_error() -> None:
    found = table(MUP, own_shapes(OwnModel(32)))
    with pytest.raises(UserError, match="another shape than its row"):
        apply(OwnModel(1), found, seed=0)  # a copy of one value would broadcast silently


def losses(
    settings: ModelSettings, multiplier: float, theta: float, head_only: bool = True
) -> list[float]:
    """Six steps of AdamW in float64, the output weight re-expressed by ``theta``.

    (multiplier, std, rate, epsilon, decay) become (A theta, std / theta, rate / theta,
    epsilon theta, decay theta) for the group of the output weight.
    """
    model = Decoder(settings).double()
    changed = MUP.model_copy(update={"output_multiplier": multiplier})
    groups = apply(model, table(changed, model_shapes(settings)), seed=0)
    head = model.head_weight
    with torch.no_grad():
        head.div_(theta)
    model.output_multiplier *= theta
    optimizer = torch.optim.AdamW(
        [options for group in groups for options in optimizer_groups(group, head, theta)],
        betas=(0.9, 0.95),
    )
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 40, (6, 4, 17), generator=generator)
    found = []
    for step_tokens in tokens:
        total, count = model.loss(step_tokens[:, :-1], step_tokens[:, 1:])
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        found.append((total / count).item())
    return found


def optimizer_groups(
    group: ParameterGroup, head: torch.Tensor, theta: float
) -> list[dict[str, object]]:
    """A group's options for AdamW, the head in one of its own."""
    rate = 1e-2 * group.learning_rate_multiplier
    decay, epsilon = 0.1 * group.weight_decay_multiplier, 1e-3 * group.epsilon_multiplier
    groups = []
    for is_head in (True, False):
        factor = theta if is_head else 1.0
        members = [value for value in group.parameters if (value is head) is is_head]
        if members:
            groups.append(
                {
                    "params": members,
                    "lr": rate / factor,
                    "weight_decay": decay * factor,
                    "eps": epsilon * factor,
                }
            )
    return groups


@pytest.fixture
def untied() -> ModelSettings:
    return decoder_settings(tied_embeddings=False)


def test_the_symmetry_of_an_untied_head_is_exact_for_powers_of_two(untied: ModelSettings) -> None:
    assert losses(untied, 1.0, 1.0) == losses(untied, 1.0, 4.0)


def test_the_symmetry_holds_for_any_factor(untied: ModelSettings) -> None:
    plain, changed = losses(untied, 1.0, 1.0), losses(untied, 1.0, 0.1)
    assert changed == pytest.approx(plain, rel=1e-12)  # float64, six steps
    assert plain[-1] != plain[0]


def test_a_tied_head_has_no_such_symmetry() -> None:
    tied = decoder_settings()
    plain, changed = losses(tied, 1.0, 1.0), losses(tied, 1.0, 4.0)
    assert max(abs(a / b - 1) for a, b in zip(plain, changed, strict=True)) > 1e-3
