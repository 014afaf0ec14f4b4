"""The coordinate check sees what it must: standard rules fail, right rules pass, mistakes fail."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from feldspar.cli.main import run_with
from feldspar.core.rows import ModelShapes, Role
from feldspar.model import Decoder, ModelSettings, model_shapes
from feldspar.parametrization import ParametrizationTable, apply, table
from feldspar.parametrization.coordinates import ATTENTION_MULTIPLIER, Axis, Measure, bounds
from feldspar.parametrization.settings import ParametrizationSettings
from feldspar.recipe import Recipe, load_recipe
from feldspar.sparsity.masks import Masks
from feldspar.study import Candidate, CoordinateCheck, Judgement, judge, write_check
from feldspar.study.coordinate_check import attention_slope
from feldspar.study.coordinate_points import (
    FULL,
    QUICK,
    Spread,
    TableRule,
    candidates_of,
    model_at,
    name_of,
    point_on,
    spreads_of,
)
from feldspar.study.coordinate_runs import (
    CoordinateRun,
    draw_batches,
    measure_run,
    observe,
    static_sparsity,
)

FEED_FORWARD_0 = Measure("feed_forward_output", "size", 0)
FEED_FORWARD_10 = Measure("feed_forward_output", "size", 10)


def recipe(*overrides: str) -> Recipe:
    return load_recipe("cerebras-gpt/small", list(overrides)).recipe


PLAIN = recipe()


def candidate(name: str, kind: Recipe = PLAIN) -> Candidate:
    return next(one for one in candidates_of(kind) if one.name == name)


def a_run(name: str, axis: Axis, value: float, learning_rate: float = 1e-2) -> CoordinateRun:
    point = point_on(axis, value)
    model = model_at(PLAIN.model, point)
    settings = candidate(name).settings.model_copy(update={"learning_rate": learning_rate})
    shapes = model_shapes(model)
    kept = {row.name: point.density for row in shapes.rows if row.role is Role.HIDDEN and value < 1}
    return CoordinateRun(table(settings, shapes, kept), model, point.density, seed=5)


def test_the_batches_are_text_and_the_same_each_time() -> None:
    batches = draw_batches()
    assert batches.shape == (11, 8, 65) and batches.dtype == np.uint8
    assert (batches == draw_batches()).all()
    assert len({batch.tobytes() for batch in batches}) == 11
    assert (batches == ord(" ")).mean() > 0.05


@pytest.mark.parametrize(
    "positions", ["learned", "alibi", {"type": "rotary", "fraction": 0.5}], ids=str
)
def test_observed_activations_are_those_of_the_forward_pass(positions: Any) -> None:
    settings = ModelSettings(
        n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, vocab_size=50,
        max_sequence_length=16, positions=positions, feed_forward="swiglu",
    )  # fmt: skip
    model = Decoder(settings)
    rules = ParametrizationSettings(
        type="completep", base_d_model=16, base_d_ff=24, base_n_layers=1, init_std=0.5,
        learning_rate=1e-2, embedding_multiplier=3.0,
    )  # fmt: skip
    apply(model, table(rules, model_shapes(settings)), seed=1)
    tokens = torch.arange(24).view(2, 12) % 50
    seen = observe(model, tokens)
    assert [len(seen[name]) for name in seen] == [2, 2, 2, 1, 1]
    # The stream is what went in and both branches of both blocks; each divided by the depth, 2.
    embedded = model.token_embedding(tokens)
    if model.position_embedding is not None:
        embedded = embedded + model.position_embedding.weight[:12]
    branches = sum(seen["attention_output"]) + sum(seen["feed_forward_output"])
    torch.testing.assert_close(seen["residual_stream"][0], 3 * embedded + branches / 2)
    hidden = model.final_norm(seen["residual_stream"][0])
    torch.testing.assert_close(
        seen["logits"][0], hidden @ model.token_embedding.weight.T * model.output_multiplier
    )
    if model.position_embedding is not None:
        x = model.blocks[0].attention_norm(3 * embedded)
        fused = F.linear(x, *model.blocks[0].attention.query_key_value.parameters())
        query = fused[..., :32].view(2, 12, 4, 8)
        key = fused[..., 32:48].view(2, 12, 2, 8)[:, :, [0, 0, 1, 1]]
        scores = torch.einsum("bihd,bjhd->bhij", query, key) / 8
        visible = torch.arange(12)[:, None] >= torch.arange(12)
        torch.testing.assert_close(seen["attention_logits"][0], scores[..., visible])
    assert not any(module._forward_hooks for module in model.modules())
    assert not model.final_norm._forward_pre_hooks


def test_a_run_trains_as_plain_adamw_does_and_masked_entries_stay_zero() -> None:
    run, batches = a_run("supar", "density", 1 / 4), draw_batches()
    model = Decoder(run.model)
    apply(model, run.table, run.seed)
    masks = Masks.draw(static_sparsity(1 / 4), model_shapes(run.model).rows, run.seed).tensors
    assert len(masks) == 8
    groups = []
    for name, parameter in model.named_parameters():
        if name in masks:
            parameter.data[~masks[name]] = 0.0
            parameter.register_hook(lambda grad, name=name: grad * masks[name])
        rate = 1e-2 * run.table.entry(name).learning_rate_multiplier
        groups.append({"params": [parameter], "lr": rate})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
    tokens = torch.from_numpy(batches).long()
    before = observe(model, tokens[0, :, :-1])
    for batch in tokens[1:]:
        adamw.zero_grad()
        logits = model.logits(model(batch[:, :-1]))
        F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        adamw.step()
    after = observe(model, tokens[0, :, :-1])
    assert all((dict(model.named_parameters())[name][~masks[name]] == 0).all() for name in masks)
    measured = measure_run(run, batches)
    size = np.mean([float(x.abs().mean()) for x in after["feed_forward_output"]])
    assert measured[FEED_FORWARD_10] == pytest.approx(size, rel=1e-3)
    (now,), (then,) = after["residual_stream"], before["residual_stream"]
    change = float((now - then).abs().mean())
    assert measured[Measure("residual_stream", "change", 10)] == pytest.approx(change, rel=1e-3)


def test_without_a_rate_nothing_changes() -> None:
    measured = measure_run(a_run("mup", "width", 64, learning_rate=1e-30), draw_batches())
    assert all(value == 0.0 for measure, value in measured.items() if measure.kind == "change")
    assert len({measured[Measure("logits", "size", step)] for step in (0, 1, 5, 10)}) == 1
    assert len(measured) == 5 * (4 + 3)


def test_the_first_slopes_tell_standard_from_right_rules() -> None:
    found = judge(
        PLAIN.model, [candidate("sp"), candidate("mup")], {"width": Spread((64, 256), 1)}, workers=1
    )
    standard, right = found
    assert standard.slopes[FEED_FORWARD_0] == pytest.approx(1.0, abs=0.15)
    assert right.slopes[FEED_FORWARD_0] == pytest.approx(0.0, abs=0.1)
    assert right.slopes[Measure("logits", "size", 0)] == pytest.approx(-0.5, abs=0.1)
    assert not standard.passed and standard.grows_clearly
    assert right.passed and not right.grows_clearly
    assert right.sizes[FEED_FORWARD_0][0] == pytest.approx(right.sizes[FEED_FORWARD_0][1], rel=0.2)


def test_candidates_of_the_same_rules_share_their_runs() -> None:
    pair = [candidate("mup"), candidate("supar")]
    first, second = judge(PLAIN.model, pair, {"width": Spread((32, 64), 1)}, workers=1)
    assert first.sizes == second.sizes and first.candidate.name != second.candidate.name


@pytest.mark.parametrize("name", ["mup", "supar", "completep", "supar:1"])
def test_the_attention_multiplier_is_tested_by_value(name: str) -> None:
    right = candidate(name)

    def by_the_root(
        settings: ParametrizationSettings, shapes: ModelShapes, densities: Any
    ) -> ParametrizationTable:
        found = table(settings, shapes, densities)
        root = found.forward.attention * math.sqrt(shapes.head_dim)
        return replace(found, forward=replace(found.forward, attention=root))

    (bound,) = (
        one for one in bounds("width", right.settings) if one.measure == ATTENTION_MULTIPLIER
    )
    assert bound.holds({ATTENTION_MULTIPLIER: attention_slope(PLAIN.model, right)})
    wrong = replace(right, rule=by_the_root)
    assert not bound.holds({ATTENTION_MULTIPLIER: attention_slope(PLAIN.model, wrong)})
    assert attention_slope(PLAIN.model, candidate("sp")) == pytest.approx(-0.5)


Change = Callable[[ParametrizationTable, ModelShapes], ParametrizationTable]


def hidden_changed(factor: Callable[[Any, ModelShapes], dict[str, float]]) -> Change:
    """A mistake in the entries of the hidden matrices."""

    def change(found: ParametrizationTable, shapes: ModelShapes) -> ParametrizationTable:
        entries = tuple(
            replace(entry, **factor(entry, shapes)) if entry.role is Role.HIDDEN else entry
            for entry in found.tensors
        )
        return replace(found, tensors=entries)

    return change


def m_d(shapes: ModelShapes) -> float:
    return shapes.d_model / 64


def without_output_multiplier(
    found: ParametrizationTable, shapes: ModelShapes
) -> ParametrizationTable:
    return replace(found, forward=replace(found.forward, output=1.0))


@dataclass(frozen=True)
class Mistake:
    """A wrong rule, and measures that show it."""

    name: str
    axis: Axis
    change: Change
    seen: frozenset[str]


MISTAKES = [
    Mistake(
        "init not divided by the root of m_d",
        "width",
        hidden_changed(lambda entry, shapes: {"init_std": entry.init_std * m_d(shapes) ** 0.5}),
        frozenset({"feed forward output at step 0"}),
    ),
    Mistake(
        "learning rate not divided by m_d",
        "width",
        hidden_changed(lambda entry, shapes: {"learning_rate_multiplier": 1.0}),
        frozenset({"residual stream change at step 1", "residual stream change at step 5"}),
    ),
    Mistake(
        "logits multiplier missing",
        "width",
        without_output_multiplier,
        frozenset({"logits at step 0"}),
    ),
    Mistake(
        "init without m_rho",
        "density",
        hidden_changed(lambda entry, shapes: {"init_std": entry.init_std * entry.density**0.5}),
        frozenset({"feed forward output at step 0", "residual stream change at step 1"}),
    ),
    Mistake(
        "learning rate without m_rho",
        "density",
        hidden_changed(
            lambda entry, shapes: {
                "learning_rate_multiplier": entry.learning_rate_multiplier * entry.density
            }
        ),
        frozenset({"residual stream change at step 1", "residual stream change at step 5"}),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "type_"), [("width", "mup"), ("density", "supar")])
def test_right_rules_pass_and_each_mistake_in_the_table_fails(axis: Axis, type_: str) -> None:
    right = candidate(type_)
    mistakes = [mistake for mistake in MISTAKES if mistake.axis == axis]
    wrong = [
        replace(right, name=mistake.name, rule=mistaken(mistake.change)) for mistake in mistakes
    ]
    good, *bad = judge(PLAIN.model, [right, *wrong], {axis: QUICK[axis]})
    assert good.passed
    for mistake, found in zip(mistakes, bad, strict=True):
        seen = {str(bound.measure) for bound in found.faults}
        assert mistake.seen <= seen, mistake.name


def mistaken(change: Change) -> TableRule:
    """The table's rule with a mistake in it."""
    return lambda settings, shapes, densities: change(table(settings, shapes, densities), shapes)


QUICK_VERDICTS = {
    "width": {"sp": "fail", "mup": "pass", "supar": "pass", "completep": "pass"},
    "density": {"sp": "fail", "mup": "fail", "supar": "pass", "completep": "fail"},
    "depth": {"sp": "fail", "mup": "fail", "supar": "fail", "completep": "pass"},
}


@pytest.mark.slow
def test_the_quick_check_of_a_shipped_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "check"
    arguments = ["coordinate-check", "cerebras-gpt/small", "--quick", "--json", "--out", str(out)]
    assert run_with(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "coordinate-check.json").read_text(encoding="utf-8"))
    for axis, verdicts in QUICK_VERDICTS.items():
        assert verdicts.items() <= printed["verdicts"][axis].items(), axis
    assert {found["completep:0.5"] for found in (printed["verdicts"]["depth"],)} == {"pass"}
    assert {found["supar:1"] for found in printed["verdicts"].values()} == {"pass"}
    assert printed["silent_controls"] == []
    assert printed["recipe"]["claims"] == ["width"] and printed["recipe"]["broken"] == []
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") > 9
    assert not any(outside in page for outside in ("src=", "<link", 'href="http'))


def judgement(axis: Axis, name: str, slope: float) -> Judgement:
    """A synthetic one: every slope the same, but for those that must not be flat."""
    measures = [
        Measure(quantity, kind, step)
        for quantity in ("feed_forward_output", "residual_stream", "logits")
        for kind in ("size", "change")
        for step in (0, 1, 5, 10)
    ]
    slopes = dict.fromkeys(measures, slope)
    slopes |= {Measure("logits", "size", 0): -0.5, ATTENTION_MULTIPLIER: -1.0}
    sizes = {measure: tuple(value**slope for value in QUICK[axis].values) for measure in measures}
    return Judgement(axis, candidate(name), QUICK[axis], sizes, slopes)


def synthetic(own: str, **slopes: float) -> CoordinateCheck:
    """One of width alone."""
    judgements = tuple(judgement("width", name, value) for name, value in slopes.items())
    return CoordinateCheck("some", own, ("width",), judgements)


def test_only_a_broken_promise_of_the_recipe_counts() -> None:
    right = synthetic("mup", sp=1.0, mup=0.0)
    assert right.broken_claims == () and right.silent_controls == ()
    assert right.as_dict()["verdicts"] == {"width": {"sp": "fail", "mup": "pass"}}
    wrong = synthetic("mup", sp=1.0, mup=0.5)
    assert wrong.broken_claims == ("width",) and "fails on width" in wrong.outcome
    assert wrong.as_dict()["faults"]["width"]["mup"][0] == {
        "measure": "feed forward output at step 0",
        "slope": 0.5,
        "allowed": [-0.1, 0.1],
    }
    assert synthetic("mup", sp=0.3, mup=0.0).silent_controls == (("width", "sp"),)


def test_divergence_fails_and_is_null_in_json(tmp_path: Path) -> None:
    check = synthetic("mup", sp=1.0, mup=math.nan)
    assert check.broken_claims == ("width",)
    write_check(check, tmp_path)
    record = json.loads((tmp_path / "coordinate-check.json").read_text(encoding="utf-8"))
    assert record["slopes"]["width"]["mup"]["feed_forward_output"]["size"]["10"] is None
    assert record["slopes"]["width"]["sp"]["feed_forward_output"]["size"]["10"] == 1.0
    assert (tmp_path / "width.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_kind_of_model_is_the_recipes_and_its_size_the_checks() -> None:
    kind = load_recipe("quickstart", ["model.n_kv_heads=2", "model.dropout=0.1"]).recipe.model
    small = model_at(kind, point_on("width", 192))
    assert (small.d_model, small.n_heads, small.n_kv_heads, small.d_ff) == (192, 6, 3, 516)
    assert (small.n_layers, small.vocab_size, small.max_sequence_length) == (2, 256, 64)
    assert (small.positions, small.feed_forward, small.norm) == (
        kind.positions,
        "swiglu",
        kind.norm,
    )
    assert (small.bias, small.tied_embeddings, small.dropout) == (False, True, 0.0)
    few = kind.model_copy(update={"n_heads": 12, "n_kv_heads": 2})
    heads = [model_at(few, point_on("width", width)).n_kv_heads for width in (32, 192, 256, 512)]
    assert heads == [1, 1, 1, 2]
    odd = kind.model_copy(update={"positions": kind.positions.model_copy(update={"fraction": 0.1})})
    ModelSettings.model_validate(model_at(odd, point_on("width", 64)).model_dump())


def test_every_parametrization_is_judged_and_the_recipes_own_with_its_own_values() -> None:
    names = ["sp", "mup", "supar", "completep", "completep:0.5", "supar:1"]
    assert [one.name for one in candidates_of(PLAIN)] == names
    own = load_recipe("cerebras-gpt/paper", ["choose.parametrization=mup"]).recipe
    found = {one.name: one.settings for one in candidates_of(own)}
    # Tuned with the recipe's own rates, which the check replaces.
    assert {one.embedding_multiplier for one in found.values()} == {1.0}
    assert (found["sp"].init_std, found["mup"].init_std) == (0.02, 0.08)
    assert {one.init for one in found.values()} == {"truncated_normal"}
    assert found["mup"].base_d_ff == 256
    odd = recipe("parametrization.type=completep", "parametrization.depth_exponent=0.75",
                 "parametrization.base_n_layers=2")  # fmt: skip
    assert [one.name for one in candidates_of(odd)] == [*names, "completep:0.75"]
    assert name_of(odd.parametrization) == "completep:0.75"
    stated = load_recipe("cerebras-gpt/paper").recipe
    fixed = {one.name: one.settings.block_output_init_std for one in candidates_of(stated)}
    assert fixed == dict.fromkeys(names) | {"sp": 0.0044721}


def test_the_recipe_may_name_the_sizes() -> None:
    vary = (
        "study.vary={model.d_model: {low: 64, high: 256, points: 3}, model.n_layers: [8, 2, 4, 16],"
        " phases.0.sparsity.sparsity: [0.75, 0, 0.5, 0.5]}"
    )
    named = recipe(vary)
    assert {axis: spread.values for axis, spread in spreads_of(named, quick=False).items()} == {
        "width": (64, 128, 256),
        "density": (1, 0.5, 0.25),
        "depth": (2, 4, 8, 16),
    }
    assert spreads_of(named, quick=True)["depth"] == Spread((2, 8, 16), QUICK["depth"].seeds)
    assert spreads_of(PLAIN, quick=False) == FULL and spreads_of(PLAIN, quick=True) == QUICK


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["no/such"], "'no/such' is neither a file nor a shipped recipe"),
        (["quickstart", "model.d_modle=3"], "model.d_modle: unknown key"),
        (
            ["quickstart", "study.vary={model.d_model: [64, 100]}"],
            "study.vary: model.d_model: 100 is no width of the check",
        ),
        (
            ["quickstart", "study.vary={model.d_model: {low: 64, high: 128}}"],
            "study.vary: model.d_model is a range without points",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [2, 2]}"],
            "study.vary: model.n_layers: a slope needs two different values",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [two, 4]}"],
            "study.vary: model.n_layers: 'two' is no number",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [2.5, 4]}"],
            "study.vary: model.n_layers: 2.5 is no number of blocks",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [0, 1]}"],
            "study.vary: phases.0.sparsity.sparsity: 1 is no sparsity",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [-0.5, 0]}"],
            "study.vary: phases.0.sparsity.sparsity: -0.5 is no sparsity",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [0, 0.999]}"],
            "sparsity: blocks.0.attention.query_key_value.weight would keep fewer than one input",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_before_anything_runs(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_with(["coordinate-check", *arguments, "--out", str(out)]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith(f"error: {line}")
    assert not out.exists()
