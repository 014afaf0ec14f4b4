"""SlimPajama-DC's accounting (2309.10818): tokens and passes of each mixture, the 7B phases."""

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.sources import data_record, resolve_mixtures
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe

BUDGET = 330e9
WEB = "commoncrawl"

# Per cent of 330 B tokens, as printed; what a source is read times where the paper's text tells.
MIXTURES: dict[str, dict[str, float]] = {
    "dc-1": {WEB: 100},
    "dc-2": {WEB: 90.9, "github": 9.1},
    "dc-3": {WEB: 75.8, "github": 24.2},
    "dc-4": {WEB: 75.8, "wikipedia": 24.2},
    "dc-5": {WEB: 75.8, "github": 9.1, "books": 7.9, "wikipedia": 7.3},
    "dc-6": {
        WEB: 52.2,
        "c4": 26.7,
        "github": 5.2,
        "books": 4.2,
        "arxiv": 4.6,
        "wikipedia": 3.8,
        "stackexchange": 3.3,
    },
    "dc-7": {"refinedweb": 100},
    "redpajama": {
        WEB: 72.6,
        "c4": 14.4,
        "github": 4.9,
        "books": 2.1,
        "arxiv": 2.3,
        "wikipedia": 2.0,
        "stackexchange": 1.7,
    },
}
PASSES = {
    ("dc-3", "github"): 2.4,
    ("dc-4", "wikipedia"): 3.35,
    ("dc-5", "books"): 1.0,
}


def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(f"slimpajama-dc/{name}", list(overrides)).recipe


def declared(given: Recipe) -> dict[str, int | None]:
    assert given.corpus is not None
    return {name: source.tokens for name, source in given.corpus.sources.items()}


def test_every_mixture_of_the_recipe_is_here() -> None:
    assert set(recipe("paper").choices["mixture"]) == set(MIXTURES)


@pytest.mark.parametrize("name", MIXTURES)
def test_tokens_and_passes(name: str) -> None:
    given = recipe("paper", f"choose.mixture={name}")
    timeline = plan_recipe(given).timeline
    record = data_record(given, timeline, declared(given))
    expected = MIXTURES[name]
    total = sum(expected.values())
    assert total == pytest.approx(100, abs=0.11)
    assert set(record["sources"]) == set(expected)
    for source, percent in expected.items():
        read = record["sources"][source]["read_tokens"]
        assert read == pytest.approx(BUDGET * percent / total, rel=1e-5)
        passes = PASSES.get((name, source))
        if passes is not None:
            assert record["sources"][source]["epochs"] == pytest.approx(passes, rel=0.025)
    resolve_mixtures(given, timeline, declared(given))  # nothing is read again in silence


def test_a_source_is_not_read_again_in_silence() -> None:
    given = recipe("paper", "choose.mixture=dc-3", "phases.0.allow_repeat=false")
    with pytest.raises(UserError, match=r"'github' .* would be read 2\.45 times"):
        resolve_mixtures(given, plan_recipe(given).timeline, declared(given))


def test_percentages_are_not_scaled_in_silence() -> None:
    with pytest.raises(UserError, match="normalize_mixture: true"):
        recipe("paper", "choose.mixture=dc-5", "phases.0.normalize_mixture=false")


def test_parameters_and_steps() -> None:
    plan = plan_recipe(recipe("paper"))
    # 24 layers of 4 x 2048^2 + 3 x 2048 x 5461 with biases, 50,257 embeddings of 2048.
    assert plan.shapes.parameters == pytest.approx(1.3e9, rel=0.01)
    assert plan.timeline.phases[0].length // plan.timeline.steps == 976 * 2048


def test_only_weight_decay_changes_in_the_7b_model() -> None:
    given = recipe("7b")
    plan = plan_recipe(given)
    assert plan.shapes.parameters == pytest.approx(6.7e9, rel=0.01)
    decays = [phase.weight_decay.segments[0].to for phase in given.phases if phase.weight_decay]
    assert decays == [0, 0.5, 0.1]
    same = {
        phase.model_copy(update={"name": "", "weight_decay": None}).model_dump_json()
        for phase in given.phases
    }
    assert len(same) == 1
    assert all(phase.optimizer_state is None for phase in given.phases)
    tokens = {phase.length for phase in plan.timeline.phases}
    assert tokens == {110_000_000_000 // (6982 * 2048) * 6982 * 2048}
    resolve_mixtures(given, plan.timeline, declared(given))
