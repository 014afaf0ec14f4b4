"""The settings of Sparse-IFT (2303.11525): wide models, and what does not keep the FLOPs."""

import json
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe, plain
from feldspar.recipe.sections.model import ModelSettings

GPT3_SMALL: dict[str, Any] = {
    "n_layers": 12,
    "d_model": 768,
    "n_heads": 12,
    "d_ff": 3072,
    "vocab_size": 50257,
    "max_sequence_length": 1024,
}


def wide(sparsity: float, **changes: Any) -> ModelSettings:
    return ModelSettings.model_validate(
        GPT3_SMALL | {"sparse_iso_flop": {"type": "wide", "sparsity": sparsity}} | changes
    )


@pytest.mark.parametrize(
    ("sparsity", "d_model", "d_ff"), [(0.5, 1092, 4368), (0.75, 1536, 6144), (0.36, 960, 3840)]
)
def test_the_widths_of_the_papers_gpt(sparsity: float, d_model: int, d_ff: int) -> None:
    model = wide(sparsity)
    assert (model.d_model, model.d_ff, model.n_heads) == (d_model, d_ff, 12)
    assert model.head_width == d_model // 12
    assert model.dense == ModelSettings.model_validate(GPT3_SMALL)


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.6, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("heads", [1, 4, 12])
def test_a_width_is_the_smallest_multiple_that_is_wide_enough(sparsity: float, heads: int) -> None:
    found = wide(sparsity, n_heads=heads).d_model
    density = 1 - Fraction(str(sparsity))
    assert found % heads == 0
    assert density * found**2 >= 768**2 > density * (found - heads) ** 2
    assert found == pytest.approx(768 / sqrt(1 - sparsity), abs=heads)


def test_heads_of_rotary_models_stay_even() -> None:
    for positions in ("rotary", {"type": "rotary", "fraction": 0.25}):
        model = wide(0.5, positions=positions)
        assert model.d_model % 12 == 0
        fraction = getattr(model.positions, "fraction", 0)
        assert round(fraction * model.head_width) % 2 == 0
    assert wide(0.5, positions="rotary").d_model == 12 * 92
    own = wide(0.5, positions="rotary", head_dim=80)
    assert (own.d_model, own.head_width) == (1092, 114)  # 80 sqrt(2) = 113.1


def test_settings_come_back_from_their_own_dump() -> None:
    model = wide(0.5)
    assert ModelSettings.model_validate_json(model.model_dump_json()) == model
    assert "sparse_iso_flop" not in ModelSettings.model_validate(GPT3_SMALL).model_dump()
    changed = json.loads(model.model_dump_json()) | {"d_model": 1104}
    with pytest.raises(ValidationError, match="its d_model 768 widens to 1092, but the model has"):
        ModelSettings.model_validate(changed)


def test_the_old_name_is_refused_with_the_new_one(small: Path) -> None:
    message = r"model\.iso_flop: unknown key; it is named model\.sparse_iso_flop"
    with pytest.raises(UserError, match=message):
        load_recipe(str(small), ["model.iso_flop={type: wide, sparsity: 0.5}"])


def test_a_dense_shape_is_checked_as_such(small: Path) -> None:
    overrides = ["model.sparse_iso_flop={type: wide, sparsity: 0.5}", "model.d_model=66"]
    with pytest.raises(UserError, match="d_model 66 is not a multiple of 4 heads"):
        load_recipe(str(small), overrides)


def test_the_first_phase_is_masked_by_default(small: Path) -> None:
    loaded = load_recipe(str(small), ["model.sparse_iso_flop={type: wide, sparsity: 0.75}"])
    assert loaded.recipe.sparsity(0).type == "static"
    assert getattr(loaded.recipe.sparsity(0), "sparsity", None) == 0.75
    assert plain(loaded)["model"]["sparse_iso_flop"]["dense"]["d_model"] == 64


@pytest.mark.parametrize("type_", ["static", "set", "rigl"])
def test_masks_of_the_same_sparsity_are_allowed(small: Path, type_: str) -> None:
    loaded = load_recipe(
        str(small),
        [
            "model.sparse_iso_flop={type: wide, sparsity: 0.75}",
            f"phases.0.sparsity={{type: {type_}, sparsity: 0.75, distribution: erk}}",
        ],
    )
    assert loaded.recipe.sparsity(0).type == type_


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        ("{type: static, sparsity: 0.5}", r"phases\.0\.sparsity: 0\.5 is not the sparsity of"),
        ("dense", r"phases\.0\.sparsity: 0 is not the sparsity of model\.sparse_iso_flop, 0\.75"),
        ("{type: gradual, sparsity: 0.75}", r"phases\.0\.sparsity\.type: gradual masks begin"),
        (
            "{type: static, sparsity: 0.75, targets: [attention]}",
            r"phases\.0\.sparsity\.targets: model\.sparse_iso_flop masks all matrices",
        ),
        (
            "{type: static, sparsity: 0.75, per_tensor: {'*output*': 0.5}}",
            r"phases\.0\.sparsity\.per_tensor: model\.sparse_iso_flop masks all matrices",
        ),
    ],
)
def test_masks_that_change_the_flops_are_refused(small: Path, sparsity: str, message: str) -> None:
    overrides = [
        "model.sparse_iso_flop={type: wide, sparsity: 0.75}",
        f"phases.0.sparsity={sparsity}",
    ]
    with pytest.raises(UserError, match=message):
        load_recipe(str(small), overrides)


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [("0", "must be more than 0"), ("75", "write 0.75 for 75 %"), ("1.0", "less than 1")],
)
def test_sparsities_that_no_member_has(small: Path, sparsity: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"model\.sparse_iso_flop\.sparsity: .*{message}"):
        load_recipe(str(small), [f"model.sparse_iso_flop={{type: wide, sparsity: {sparsity}}}"])
