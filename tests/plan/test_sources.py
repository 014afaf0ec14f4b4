"""What a run reads of its sources: shares, passes, unique tokens, and where that is too much."""

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.sources import resolve_mixtures
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.tokens.sequences.resolve import MeasuredTokens
from tests.plan.conftest import PlanText

TWO_PHASES = """\
phases:
  - name: one
    length: 10 steps
    mixture: {a: 0.75, b: 0.25}
    allow_repeat: [a]
    batch: {sequences: 4}
  - {name: two, length: 5 steps, mixture: {b: 1}, batch: {sequences: 4}}
"""


def test_shares_passes_and_unique_tokens(plan_text: PlanText) -> None:
    data = plan_text(TWO_PHASES, {"a": 960, "b": 64_000, "unread": 5}).summary()["data"]
    one, two = data["phases"]
    a, b = ({"part": None, "part_tokens": tokens} for tokens in (960, 64_000))
    assert one["sources"]["a"] == a | {"probability": 0.75, "tokens": 1920, "epochs": 2.0}
    assert one["sources"]["b"] == b | {"probability": 0.25, "tokens": 640, "epochs": 0.01}
    assert two["sources"] == {"b": b | {"probability": 1.0, "tokens": 1280, "epochs": 0.02}}
    assert set(data["sources"]) == {"a", "b"}
    total = {"tokens": 64_000, "read_tokens": 1920, "unique_tokens": 1920}
    assert data["sources"]["b"] == total | {"epochs": pytest.approx(0.03)}
    assert data["sources"]["a"]["unique_tokens"] == 960
    assert data["unique_tokens"] == 960 + 1920 and data["unknown"] is None


def test_the_pile_is_more_than_enough() -> None:
    summary = plan_recipe(load_recipe("cerebras-gpt/paper", ["choose.size=13B"]).recipe).summary()
    pile = summary["data"]["sources"]["pile"]
    assert pile["tokens"] == 371_000_000_000
    assert pile["epochs"] == pytest.approx(257_066_680_320 / 371e9)
    assert summary["warnings"] == []


@pytest.mark.parametrize(("epochs", "warned"), [("4", False), ("4.5", True)])
def test_many_passes_are_worth_a_warning(plan_text: PlanText, epochs: str, warned: bool) -> None:
    text = f"phases: [{{name: x, length: {epochs} epochs, batch: {{sequences: 1}}}}]"
    warnings = plan_text(text, {"a": 6400, "b": 640}).summary()["warnings"]
    if not warned:
        assert warnings == []
        return
    assert len(warnings) == 2
    assert warnings[0].startswith("data: a is read 4.5 times; beyond 4 passes")


def test_a_repetition_that_training_refuses_is_said(plan_text: PlanText) -> None:
    text = "phases: [{name: x, length: 64 steps, batch: {sequences: 1}}]"
    planned = plan_text(text, {"a": 2048})
    summary = planned.summary()
    assert summary["data"]["sources"]["a"]["epochs"] == 2
    [warning] = summary["warnings"]
    assert warning.startswith("training will refuse this: phases.0.mixture: source 'a'")
    with pytest.raises(UserError, match="would be read 2 times"):
        resolve_mixtures(planned.recipe, planned.timeline, planned.source_tokens)


def test_passes_count_over_phases(plan_text: PlanText) -> None:
    text = """\
phases:
  - {name: one, length: 24 steps, mixture: {a: 1}, batch: {sequences: 1}}
  - {name: two, length: 24 steps, mixture: {a: 1}, batch: {sequences: 1}}
"""
    [warning] = plan_text(text, {"a": 2048}).summary()["warnings"]
    assert "phases.1.mixture" in warning and "1.5 times" in warning


def test_what_is_not_known_is_said(plan_text: PlanText) -> None:
    bare = plan_text("phases: [{name: x, length: 4 steps, batch: {sequences: 1}}]").summary()
    assert bare["data"]["sources"] is None
    assert bare["data"]["unknown"].startswith("the recipe names no sources")
    small = plan_recipe(load_recipe("btlm/paper").recipe).summary()["data"]
    assert small["sources"]["slimpajama"]["epochs"] is None
    assert small["unique_tokens"] is None and small["unknown"] is None
    text = load_recipe("quickstart", ["phases.0.mixture=natural"])
    natural = plan_recipe(text.recipe).summary()
    assert natural["data"]["unknown"].startswith("phases.0.mixture needs the number of tokens")
    assert natural["warnings"] == []


def test_an_unknown_source_is_an_error(plan_text: PlanText) -> None:
    planned = plan_text(TWO_PHASES, {"a": 960, "c": 64_000})
    with pytest.raises(UserError, match=r"phases\.0\.mixture: unknown source 'b'"):
        planned.summary()


def test_a_source_that_is_held_out_whole_is_not_read() -> None:
    held = ["choose.mixture=dc-5", "corpus.split.out_of_distribution=[books]"]
    planned = plan_recipe(load_recipe("slimpajama-dc/paper", held).recipe)
    with pytest.raises(UserError, match=r"phases\.0\.mixture: unknown source 'books'"):
        planned.summary()


def test_parts_count_their_own_passes(plan_text: PlanText) -> None:
    text = """\
phases:
  - {name: one, length: 15 steps, mixture: {a: {probability: 1, select: {files: even}}},
     batch: {sequences: 1}}
  - {name: two, length: 15 steps, mixture: {a: {epochs: 1, select: {files: odd}}},
     batch: {sequences: 1}}
"""
    planned = plan_text(text, {"a": 1920})
    record = planned.summary()["data"]
    assert planned.summary()["warnings"] == []
    assert [phase["sources"]["a"]["epochs"] for phase in record["phases"]] == [1, 1]
    assert record["sources"]["a"]["epochs"] == 1
    assert record["sources"]["a"]["unique_tokens"] == record["sources"]["a"]["tokens"] == 1920
    # Shards tell the size of each part; the odd files may be less than half.
    measured = MeasuredTokens({"a": 1920}, {"a[even files]": 1280, "a[odd files]": 640})
    with pytest.raises(UserError, match=r"phases\.1\.mixture: the probabilities sum to 0\.6666"):
        resolve_mixtures(planned.recipe, planned.timeline, measured)


def test_a_part_that_was_read_within_another_is_read_again(plan_text: PlanText) -> None:
    text = """\
phases:
  - {name: one, length: 5 steps, mixture: {a: 1}, batch: {sequences: 1}}
  - {name: two, length: 5 steps, mixture: {a: {probability: 1, select: {range: [0, 0.5]}}},
     batch: {sequences: 1}}
"""
    [warning] = plan_text(text, {"a": 6400}).summary()["warnings"]
    assert "phases.1.mixture: source 'a'" in warning and "allow_repeat: [a]" in warning
    assert (
        plan_text(text.replace("name: two", "name: two, allow_repeat: [a]"), {"a": 6400}).summary()[
            "warnings"
        ]
        == []
    )
