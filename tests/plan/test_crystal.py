"""Crystal's phases (2411.04156) as shipped: tokens, rates, shares and passes of each source."""

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.sources import data_record, resolve_mixtures
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import FillInTheMiddle
from tests.plan.test_timeline import CRYSTAL_RATES

STEP_TOKENS = 2112 * 2048

# Billions of tokens of each source in the three phases.
READ: dict[str, tuple[float, float, float]] = {
    "arxiv": (14.91, 14.91, 2.00),
    "books": (14.25, 14.24, 1.00),
    "c4": (91.90, 91.90, 2.02),
    "commoncrawl": (183.95, 183.97, 6.99),
    "github": (17.11, 17.11, 0),
    "stackexchange": (10.92, 10.93, 1.01),
    "wikipedia": (11.78, 11.79, 7.00),
    "starcoder": (0, 582.46, 4.01),
    "python": (0, 0, 41.10),
    "html": (0, 0, 22.23),
    "javascript": (0, 0, 22.03),
    "css": (0, 0, 10.55),
}
CODE = {"github", "starcoder", "python", "html", "javascript", "css"}


def recipe(name: str = "paper", *overrides: str) -> Recipe:
    return load_recipe(f"crystal/{name}", list(overrides)).recipe


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan_recipe(recipe())


def test_parameters_steps_and_tokens(planned: Plan) -> None:
    assert planned.shapes.parameters == 6_575_278_720
    phases = planned.timeline.phases
    assert [phase.steps for phase in phases] == [79_721, 214_387, 27_728]
    assert [phase.length for phase in phases] == [344_823_300_096, 927_304_384_512, 119_934_025_728]


@pytest.mark.parametrize(("phase", "step", "rate"), CRYSTAL_RATES)
def test_rates(planned: Plan, phase: int, step: int, rate: float) -> None:
    start = planned.timeline.phases[phase].start_position
    update = planned.timeline.next_step(start + (step - 1) * STEP_TOKENS)
    assert update is not None and update.phase.index == phase
    assert update.learning_rate == pytest.approx(rate, abs=5e-11)


def test_initial_values_and_multipliers(planned: Plan) -> None:
    table = planned.table
    rows = {row.name.rpartition("blocks.0.")[2]: row for row in table.tensors}
    stds = {round(row.init_std, 8) for row in rows.values() if row.init_std}
    assert {0.073, 0.01825, 0.00228125} <= stds
    assert table.forward.output == pytest.approx(0.13875)
    assert {row.learning_rate_multiplier for row in table.tensors} == {1.0, 1 / 16}


def test_shares_and_passes(planned: Plan) -> None:
    data = planned.summary()["data"]
    assert set(data["sources"]) == set(READ)
    for index, phase in enumerate(data["phases"]):
        found = {name: entry["tokens"] / 1e9 for name, entry in phase["sources"].items()}
        assert found == {
            name: pytest.approx(read[index], abs=0.006)
            for name, read in READ.items()
            if read[index]
        }
    language, code, application = (phase["sources"] for phase in data["phases"])
    # Each half of SlimPajama once, StarCoder twice, the new code three times.
    assert all(entry["epochs"] == pytest.approx(1, rel=1e-3) for entry in language.values())
    assert all(
        entry["epochs"] == pytest.approx(2 if name == "starcoder" else 1, rel=1e-3)
        for name, entry in code.items()
    )
    for name in ("python", "html", "javascript", "css"):
        assert application[name]["epochs"] == pytest.approx(3, rel=1e-3)
    assert language["arxiv"]["part"] == "arxiv[even files]"
    assert code["arxiv"]["part"] == "arxiv[odd files]"
    assert application["arxiv"]["part"] == "arxiv[0 to 0.1]"
    arxiv = data["sources"]["arxiv"]
    assert arxiv["epochs"] == pytest.approx((14.91 + 14.91 + 2.0) / (2 * 14.91), rel=1e-3)
    assert arxiv["unique_tokens"] == arxiv["tokens"]


@pytest.mark.parametrize(("phase", "percent"), [(0, 4.96), (1, 64.66), (2, 83.31)])
def test_share_of_code(planned: Plan, phase: int, percent: float) -> None:
    sources = planned.summary()["data"]["phases"][phase]["sources"]
    share = sum(entry["probability"] for name, entry in sources.items() if name in CODE)
    assert 100 * share == pytest.approx(percent, abs=0.02)


def test_what_is_filled_in() -> None:
    language, code, application = recipe().phases
    assert language.infillings == {}
    often, seldom = (FillInTheMiddle(rate=r, spm=0.5, scope="context") for r in (0.9, 0.3))
    assert code.infillings == {"starcoder": often}
    new = dict.fromkeys(("python", "html", "javascript", "css"), seldom)
    assert application.infillings == new | {"starcoder": often}


def test_replay_is_said(planned: Plan) -> None:
    sizes = planned.source_tokens
    resolve_mixtures(planned.recipe, planned.timeline, sizes)
    assert planned.summary()["warnings"] == []
    silent = recipe("paper", "phases.2.allow_repeat=false")
    with pytest.raises(UserError, match=r"phases\.2\.mixture: source 'arxiv' .* would be read"):
        resolve_mixtures(silent, planned.timeline, sizes)
    again = recipe("paper", "phases.1.mixture.books.select.files=even")
    with pytest.raises(UserError, match=r"phases\.1\.mixture: source 'books' .* read 2 times"):
        resolve_mixtures(again, planned.timeline, sizes)


def test_the_small_line_goes_on_through_its_second_phase() -> None:
    first, second = plan_recipe(recipe("small")).timeline.phases
    for step in (102, 200, 360):
        tokens = step * 8 * 128
        assert second.learning_rate.at(tokens) == pytest.approx(
            first.learning_rate.at(tokens), rel=1e-4
        )


@pytest.mark.parametrize("name", ["small", "branch"])
def test_code_has_gaps_unless_they_are_chosen_away(name: str) -> None:
    often = FillInTheMiddle(rate=0.9, spm=0.5, scope="context")
    code = dict.fromkeys(("django-code", "package-code", "py-stdlib"), often)
    assert recipe(name).phases[-1].infillings == code
    plain = recipe(name, "choose.infilling=none")
    assert [phase.infillings for phase in plain.phases] == [{}] * len(plain.phases)


@pytest.mark.parametrize("phase", ["more-code", "application", "application-alone"])
def test_the_last_phases_of_a_branch_are_alike_but_for_their_text(phase: str) -> None:
    own, more = (recipe("branch", f"choose.phase={name}").phases for name in (phase, "more-code"))
    assert [(each.length, each.batch, each.learning_rate) for each in own] == [
        (each.length, each.batch, each.learning_rate) for each in more
    ]


def test_unknown_sizes_stay_unknown() -> None:
    given = recipe("small")
    tokens = dict.fromkeys(given.corpus.sources if given.corpus else ())
    record = data_record(given, plan_recipe(given).timeline, tokens)
    assert record["sources"]["py-stdlib"]["epochs"] is None


def test_small_reads_the_shards_of_the_trunk() -> None:
    trunk = load_recipe("trunk").recipe
    for own in (recipe("small"), recipe("branch")):
        assert (own.corpus, own.tokenizer, own.shards) == (
            trunk.corpus,
            trunk.tokenizer,
            trunk.shards,
        )
