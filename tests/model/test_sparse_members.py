"""Sizes, masks and scales of the maps of Sparse-IFT (2303.11525); test_variants has formulas."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.iso_flop import IsoFlopSettings
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.density import kept_counts, sparsities
from feldspar.sparsity.masks import Masks

MEMBERS = ("parallel", "factorized", "doped")
DENSE: dict[str, Any] = {
    "n_layers": 1,
    "d_model": 768,
    "n_heads": 12,
    "d_ff": 3072,
    "vocab_size": 16,
    "max_sequence_length": 16,
}
LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "n_kv_heads": 4, "d_ff": 2048}
MATRICES = ("attention.query_key_value", "attention.output", "feed_forward.input")


def settings_of(member: str, sparsity: float, **changes: Any) -> ModelSettings:
    """Return a dense shape of one block as a member of Sparse-IFT."""
    sparse_iso_flop = {"type": member, "sparsity": sparsity}
    return ModelSettings.model_validate(DENSE | {"sparse_iso_flop": sparse_iso_flop} | changes)


def shapes_by_name(settings: ModelSettings) -> dict[str, tuple[int, ...]]:
    return {
        row.name.removeprefix("blocks.0."): row.shape
        for row in model_shapes(settings).rows
        if row.in_block and len(row.shape) == 2
    }


def kept_in_blocks(settings: ModelSettings, sparsity: float) -> int:
    """Count the entries of the blocks' matrices that masks of this sparsity keep."""
    rows = [row for row in model_shapes(settings).rows if row.in_block and len(row.shape) == 2]
    kept = kept_counts(StaticSparsity(type="static", sparsity=sparsity), rows)
    return sum(kept.get(row.name, row.count) for row in rows)


@pytest.mark.parametrize("changes", [{}, {"d_model": 256, "n_heads": 4, "d_ff": 1000}, LLAMA])
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("member", MEMBERS)
def test_kept_entries_are_those_of_the_dense_model(
    member: str, sparsity: float, changes: dict[str, Any]
) -> None:
    settings = settings_of(member, sparsity, **changes)
    dense = sum(rows * columns for rows, columns in shapes_by_name(settings.dense).values())
    kept = kept_in_blocks(settings, sparsity)
    assert abs(kept / dense - 1) < 0.005
    assert (kept <= dense) if member == "doped" else (kept >= dense - 8 * len(MATRICES))


@pytest.mark.parametrize("width", [256, 512, 768, 1024])
def test_kept_entries_of_wide_models(width: int) -> None:
    settings = settings_of("wide", 0.75, d_model=width, n_heads=4, d_ff=4 * width)
    assert kept_in_blocks(settings, 0.75) == 12 * width**2
    # Rounding to whole heads adds less than one multiple of them to the width.
    rounded = settings_of("wide", 0.5, d_model=width, n_heads=4, d_ff=4 * width)
    assert 1 <= kept_in_blocks(rounded, 0.5) / (12 * width**2) < (1 + 4 / (2**0.5 * width)) ** 2


@pytest.mark.parametrize(
    ("sparsity", "factorized", "doped"), [(0.5, 768, 192), (0.75, 1536, 288), (0.9, 3840, 345)]
)
def test_the_inner_widths_of_a_square_matrix(sparsity: float, factorized: int, doped: int) -> None:
    for member, inner in (("factorized", factorized), ("doped", doped)):
        found = shapes_by_name(settings_of(member, sparsity))
        assert found["attention.output.u.weight"] == (inner, 768)
        assert found["attention.output.v.weight"] == (768, inner)
    assert found["attention.output.w.weight"] == (768, 768)


def test_inner_widths_round_up_in_factorized_and_down_in_doped() -> None:
    for n_in, n_out, sparsity in ((768, 2304, "0.9"), (100, 37, "0.3"), (768, 768, "0.77")):
        exact = Fraction(n_in * n_out, n_in + n_out)
        member = IsoFlopSettings(type="doped", sparsity=float(sparsity))
        share = Fraction(sparsity)
        assert member.factorized_width(n_in, n_out) == ceil(exact / (1 - share))
        assert member.doped_rank(n_in, n_out) == floor(exact * share)


@pytest.mark.parametrize(("sparsity", "branches"), [(0.5, 2), (0.75, 4), (0.9, 10), (0.666667, 3)])
def test_parallel_has_as_many_matrices_as_their_entries_are_rare(
    sparsity: float, branches: int
) -> None:
    found = shapes_by_name(settings_of("parallel", sparsity))
    maps = {"attention.query_key_value": (2304, 768), "attention.output": (768, 768)}
    for name, shape in maps.items():
        matrices = [each for key, each in found.items() if key.startswith(name)]
        assert matrices == [shape] * branches


@pytest.mark.parametrize("sparsity", [0.6, 0.2, 0.7])
def test_a_fraction_of_a_branch_is_refused(sparsity: float) -> None:
    nearest = {
        0.6: r"0\.666667 \(3 branches\) or 0\.5 \(2 branches\)",
        0.2: r"0\.5 \(2 branches\)",
        0.7: r"0\.666667 \(3 branches\) or 0\.75 \(4 branches\)",
    }
    with pytest.raises(ValueError, match=f"the nearest sparsity: {nearest[sparsity]}"):
        IsoFlopSettings(type="parallel", sparsity=sparsity)


def test_only_the_sparse_matrices_are_masked() -> None:
    for member, parts in (("doped", {"w"}), ("factorized", {"u", "v"}), ("parallel", {*"0123"})):
        shapes = model_shapes(settings_of(member, 0.75, d_model=96, d_ff=384))
        shares = sparsities(StaticSparsity(type="static", sparsity=0.75), shapes.rows)
        assert {name.split(".")[-2] for name in shares} == parts
    rows = model_shapes(settings_of("doped", 0.75, d_model=96, d_ff=384)).rows
    own = StaticSparsity(type="static", sparsity=0.75, per_tensor={"*.v.weight": 0.5})
    with pytest.raises(UserError, match="per_tensor"):
        sparsities(own, rows)


@pytest.mark.parametrize("member", MEMBERS)
def test_branches_and_factors_are_not_one_matrix(
    make_decoder: Callable[..., Decoder], member: str
) -> None:
    """A map that was linear would give f(x) + f(y) - f(0) for x + y; only Doped is linear."""
    decoder = make_decoder(dtype=torch.float64, sparse_iso_flop={"type": member, "sparsity": 0.5})
    block: Any = decoder.blocks[0]
    x, y = torch.randn(2, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    f = block.attention.query_key_value
    difference = (f(x + y) - f(x) - f(y) + f(torch.zeros_like(x))).abs().max()
    assert (difference < 1e-12) == (member == "doped")


@pytest.mark.parametrize("member", ["wide", *MEMBERS])
def test_supar_keeps_the_scale_of_outputs_over_widths(member: str) -> None:
    """Standard deviations of what the maps of a block give, at widths 64 and 512."""
    found = {}
    for width in (64, 512):
        settings = settings_of(member, 0.75, d_model=width, n_heads=4, d_ff=4 * width)
        shapes = model_shapes(settings)
        masked = StaticSparsity(type="static", sparsity=0.75)
        masks = Masks.draw(masked, shapes.rows, 0)
        wanted = ParametrizationSettings(
            type="supar", base_d_model=64, base_d_ff=256, init_std=0.1, learning_rate=1
        )
        density = {name: masks.density(name) for name in masks.tensors}
        decoder = Decoder(settings)
        apply(decoder, table(wanted, shapes, density), 0)
        masks.apply_to_weights(decoder)
        block: Any = decoder.blocks[0]
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, part, n_in in (
                ("attention", block.attention.query_key_value, settings.d_model),
                ("down", block.feed_forward.output, settings.d_ff),
            ):
                x = torch.randn(64, n_in, generator=generator)
                found[name, width] = float(part(x).std())
    for name in ("attention", "down"):
        assert found[name, 512] == pytest.approx(found[name, 64], rel=0.06)


def test_multipliers_of_a_width_between_two() -> None:
    """Doped and Factorized in the feed-forward layer: d f / (d + f) against that of the base."""
    settings = settings_of("factorized", 0.75, d_model=96, d_ff=200)
    base = ParametrizationSettings(
        type="mup", base_d_model=32, base_d_ff=50, init_std=0.1, learning_rate=1
    )
    found = table(base, model_shapes(settings))
    between = (96 * 200 / 296) / (32 * 50 / 82)
    for name, multiplier in (
        ("attention.output.u", 3.0),
        ("attention.output.v", 3.0),
        ("feed_forward.input.u", 3.0),
        ("feed_forward.input.v", between),
        ("feed_forward.output.u", 4.0),
        ("feed_forward.output.v", between),
    ):
        entry = found.entry(f"blocks.0.{name}.weight")
        assert entry.learning_rate_multiplier == pytest.approx(1 / multiplier), name
    assert found.entry("blocks.0.attention.output.norm.weight").learning_rate_multiplier == 1
