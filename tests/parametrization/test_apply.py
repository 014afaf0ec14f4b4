"""The table applied to modules: initial values, groups, multipliers, and the exact symmetry."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, ParameterRole, ParameterRow, Role
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes, module_rows
from feldspar.parametrization.application import apply, initial_values, initialise, parameter_groups
from feldspar.parametrization.tables import ParametrizationTable, TensorEntry, table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.optimizer import OptimizerSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings


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


RULE = OptimizerSettings().rule(ParameterRow("some.weight", Role.HIDDEN, (1, 1)))
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
    return TensorEntry("some.weight", Role.HIDDEN, shape, 1.0, std, mean, 1, 1, 1, RULE)


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
    """A branch of somebody's own network; a plain torch layer is given its role from outside."""

    is_residual_block = True
    parameter_roles: ClassVar = {"scale": ParameterRole(Role.NORM, initial_mean=1.0)}
    forward_multipliers: ClassVar = {"factor": "residual"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = 0.0
        self.scale = nn.Parameter(torch.empty(width))
        self.inner = nn.Linear(width, width, bias=False)
        self.inner.parameter_roles = {"weight": ParameterRole(Role.HIDDEN, writes_residual=True)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.factor * self.inner(torch.relu(x * self.scale))


class OwnModel(nn.Module):
    """Somebody's own network: no attention, no decoder."""

    forward_multipliers: ClassVar = {"read_out": "output"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.table.parameter_roles = {"weight": ParameterRole(Role.EMBEDDING)}
        self.blocks = nn.Sequential(OwnBlock(width), OwnBlock(width))
        self.head = nn.Linear(width, 11)
        self.head.parameter_roles = {
            "weight": ParameterRole(Role.OUTPUT),
            "bias": ParameterRole(Role.BIAS),
        }

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.head(self.read_out * self.blocks(self.table(indices)))


def own_shapes(model: OwnModel) -> ModelShapes:
    width = model.head.in_features
    return ModelShapes(width, width, n_layers=2, head_dim=1, rows=module_rows(model))


def test_somebodys_own_module() -> None:
    model = OwnModel(32)
    settings = MUP.model_copy(update={"type": "completep", "base_n_layers": 1})
    groups = apply(model, table(settings, own_shapes(model)))
    rates = {name: group.learning_rate_multiplier for group in groups for name in group.names}
    assert rates == {
        "table.weight": 1,
        "blocks.0.scale": 1,
        "blocks.0.inner.weight": 1 / 2,
        "blocks.1.scale": 1,
        "blocks.1.inner.weight": 1 / 2,
        "head.weight": 1,
        "head.bias": 1,
    }
    assert (model.blocks[0].factor, model.read_out) == (1 / 2, 1 / 2)
    assert torch.equal(model.blocks[1].scale, torch.ones(32))
    assert model.head.weight.std().item() == pytest.approx(0.08, rel=0.15)  # 352 draws
    std = 0.08 / 2**0.5
    assert model.blocks[0].inner.weight.std().item() == pytest.approx(std, rel=0.1)  # 1024 draws
    indices = torch.arange(11)
    before = model(indices)
    optimizer = torch.optim.AdamW(
        [
            {"params": group.parameters, "lr": 1e-2 * group.learning_rate_multiplier}
            for group in groups
        ]
    )
    nn.functional.cross_entropy(before, indices).backward()
    optimizer.step()
    assert not torch.equal(model(indices), before)


def test_a_parameter_of_no_role_is_an_error() -> None:
    model = OwnModel(32)
    model.blocks[1].register_parameter("stray", nn.Parameter(torch.zeros(2)))
    with pytest.raises(UserError, match=r"blocks\.1\.stray belongs to no role"):
        module_rows(model)


def test_a_parameter_of_two_roles_is_an_error() -> None:
    model = OwnModel(32)
    model.head.weight = model.table.weight
    with pytest.raises(UserError, match=r"table\.weight belongs to two roles") as caught:
        module_rows(model)
    assert "output as head.weight" in str(caught.value)
    del model.head.parameter_roles["weight"]
    tied = {row.name: row.role for row in module_rows(model)}
    assert tied["table.weight"] is Role.EMBEDDING and "head.weight" not in tied


def test_a_tensor_shared_with_a_block_is_in_two_places() -> None:
    model = OwnModel(32)
    model.outer = nn.Linear(32, 32, bias=False)
    model.outer.parameter_roles = model.blocks[0].inner.parameter_roles
    model.outer.weight = model.blocks[0].inner.weight
    with pytest.raises(UserError, match="belongs to two roles"):
        module_rows(model)
    model.outer.weight = nn.Parameter(torch.empty(32, 32))
    model.blocks[1].inner.weight = model.blocks[0].inner.weight  # both in a block: one role
    assert [row.name for row in module_rows(model)].count("blocks.0.inner.weight") == 1


def test_a_model_that_the_table_does_not_describe_is_an_error() -> None:
    model = OwnModel(32)
    found = table(MUP, own_shapes(model))
    model.blocks[0].register_parameter("stray", nn.Parameter(torch.zeros(2)))
    for call in (lambda: apply(model, found), lambda: parameter_groups(model, found)):
        with pytest.raises(UserError, match=r"blocks\.0\.stray has no row"):
            call()
    with pytest.raises(UserError, match="different shape in the"):
        apply(OwnModel(1), found)  # a copy of one value would broadcast silently
    del model.blocks[1], model.blocks[0].stray
    with pytest.raises(UserError, match=r"a row for blocks\.1\.scale, which the model does not"):
        apply(model, found)


def test_a_multiplier_that_does_not_exist_is_an_error() -> None:
    model = OwnModel(32)
    model.forward_multipliers = {"read_out": "logits"}
    with pytest.raises(UserError, match="unknown multiplier 'logits'") as caught:
        apply(model, table(MUP, own_shapes(model)))
    assert "embedding, residual, attention, output" in str(caught.value)
