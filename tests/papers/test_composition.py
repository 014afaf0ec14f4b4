"""The claims on all methods together, on made-up figures; equal FLOPs; bits of files."""

import pytest

from feldspar.papers.composition.differences import document_interval, seed_bits
from feldspar.papers.composition.experiment import (
    ALL,
    ARM,
    ARMS,
    LARGE,
    METHODS,
    PAPER,
    PLAIN,
    PLAIN_DEDUPLICATED,
    RATE,
    RATES,
    RATES_SEED,
    SMALL,
    TUNED,
    arm_trials,
    judge,
    rate_trials,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import Figures, Findings, Scale, values_of
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from tests.papers.conftest import finished, stated

CLAIMS = stated(PAPER)
WIGGLE = (0.0, 0.002, -0.002, 0.001, -0.001)
"""Differences of the seeds; half of a 95 % interval of about 0.1 % at 2 bits."""
SIZES = {"guides": [100, 100, 200], "code": [100, 300, 100]}


def figures(changed: dict[str, float], one_file: float = 0.0) -> Figures:
    """Figures of five seeds at 2 bits per byte, all alike but for the arms in ``changed``.

    ``one_file`` more bits per byte of the first file of each kind are lost by those arms too.
    """
    seeds = [2.0, 2.1, 2.2, 2.0, 2.1]
    found: Figures = {
        "rates": {arm: {"0.01": 2.0, "0.02": 2.1} for arm in TUNED},
        "held_out_bytes": SIZES,
        "trigram": {"guides": 2.5, "code": 2.7},
        "text_bits": {},
        "little_context_bits": {},
        "gaps": {},
        "long": {},
        "runs": {
            arm: {"tokens": 1000, "flops": 1e9, "steps": [10] * 5, "seconds": [1.0] * 5}
            for arm in ARMS
        },
    }
    for arm in ARMS:
        more = [changed[arm] + noise for noise in WIGGLE] if arm in changed else [0.0] * 5
        level = [base + extra for base, extra in zip(seeds, more, strict=True)]
        extra = one_file if arm in changed else 0.0
        found["text_bits"][arm] = [
            {
                kind: [
                    size * (bits + (extra if not index else 0.0))
                    for index, size in enumerate(sizes)
                ]
                for kind, sizes in SIZES.items()
            }
            for bits in level
        ]
        found["little_context_bits"][arm] = [bits + 0.5 + extra for bits in level]
        found["gaps"][arm] = [{"prefix first": bits + 1, "prefix alone": bits} for bits in level]
        found["long"][arm] = level
    return found


def judged(made: Figures) -> dict[str, Claim]:
    return {claim.name: claim for claim in judge(made, Scale.SMALL, CLAIMS).claims}


TEXT_CLAIMS = {
    "all-beat-plain": PLAIN,
    "all-beat-plain-deduplicated": PLAIN_DEDUPLICATED,
    **{f"worth-{arm}": arm for arm in METHODS},
}


@pytest.mark.parametrize("name", TEXT_CLAIMS)
@pytest.mark.parametrize(("more", "held"), [(0.1, True), (0.005, False), (-0.1, False)])
def test_an_arm_that_is_worse_shows_the_worth_of_a_method(
    name: str, more: float, held: bool
) -> None:
    found = judged(figures({TEXT_CLAIMS[name]: more}))
    assert found[name].borne_out is held
    assert not any(found[other].borne_out for other in TEXT_CLAIMS if other != name)
    assert "is found in 80% of cases" in found[name].ours


def test_a_difference_that_one_file_makes_does_not_count() -> None:
    found = judged(figures({PLAIN: 0.0}, one_file=0.3))
    assert not found["all-beat-plain"].borne_out, "a sample without the file shows nothing"


def test_gaps_count_by_the_better_reading() -> None:
    made = figures({"no-infilling": 0.1})
    assert judged(made)["infilling-fills-gaps"].borne_out
    for run in made["gaps"]["no-infilling"]:
        run["prefix first"] = 1.0
    assert not judged(made)["infilling-fills-gaps"].borne_out


@pytest.mark.parametrize(("more", "held"), [(0.1, True), (-0.1, False)])
def test_long_positions(more: float, held: bool) -> None:
    assert judged(figures({PLAIN: more}))["all-read-long-text"].borne_out is held


def test_the_trigram_may_win() -> None:
    made = figures({})
    assert judged(made)["all-beat-trigram"].borne_out
    made["trigram"] = {"guides": 2.0, "code": 2.0}
    assert not judged(made)["all-beat-trigram"].borne_out


def test_one_arm_that_does_not_read_is_told() -> None:
    made = figures({})
    assert judged(made)["the-models-read"].borne_out
    made["little_context_bits"][ALL] = [bits + 0.01 for bits in made["long"][ALL]]
    claim = judged(made)["the-models-read"]
    assert not claim.borne_out and "of all least" in claim.ours


def found_in(changed: dict[str, float]) -> Findings:
    return judge(figures(changed), Scale.SMALL, CLAIMS)


def test_the_table_has_every_arm_and_the_trigram() -> None:
    arms, rates = found_in({"no-sparsity": 0.021}).tables
    assert [row[0] for row in arms.rows] == [*ARMS, "token trigram"]
    assert all(len(row) == len(arms.header) for row in arms.rows)
    assert arms.rows[list(ARMS).index("no-sparsity")][6].startswith("1.01% higher")
    assert arms.rows[-1][5] == "2.6000"
    assert [row[0] for row in rates.rows] == [*TUNED]


def test_the_figure_has_plain_first_and_then_methods_by_worth() -> None:
    figure = found_in({"no-infilling": 0.1, "no-sparsity": -0.1}).figure
    assert figure is not None
    places = [
        figure.svg.index(f"{name}: ")
        for name in (
            "all five: the plain recipe",
            "fill-in-the-middle",
            "two contexts",
            "sparse SmuPar",
        )
    ]
    assert places == sorted(places)


def recipe_of(arm: str, name: str = SMALL) -> Recipe:
    return load_recipe(name, [f"{ARM}={arm}"]).recipe


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_all_arms_cost_the_same_flops(name: str) -> None:
    arms = ARMS if name == SMALL else TUNED
    flops = [plan_recipe(recipe_of(arm, name)).summary()["flops"]["ledger"] for arm in arms]
    assert flops == pytest.approx([flops[0]] * len(arms), rel=0.002)


def test_an_arm_lacks_its_method_alone() -> None:
    whole = recipe_of(ALL)
    for arm, keys in {
        "no-sparsity": {"sparsity"},
        "no-steering": {"batch"},
        "no-deduplication": {"mixture"},
        "no-short-context": {"context_length", "batch"},
        "no-infilling": {"mixture"},
    }.items():
        other = recipe_of(arm)
        for own, theirs in zip(whole.phases, other.phases, strict=True):
            changed = {
                key for key in type(own).model_fields if getattr(own, key) != getattr(theirs, key)
            }
            assert changed <= keys | {"length"}, arm
        assert (other.model, other.optimizer, other.schedule) == (
            whole.model,
            whole.optimizer,
            whole.schedule,
        )
    infilled = recipe_of("no-deduplication").phases[0].infillings
    assert infilled == whole.phases[0].infillings
    assert not recipe_of("no-infilling").phases[0].infillings


def test_held_out_files_are_in_no_mixture() -> None:
    for arm in ARMS:
        for phase in recipe_of(arm).phases:
            assert not any(name.endswith("held-out") for name in phase.mixture)


def test_rates_are_tuned_on_a_seed_that_is_not_compared() -> None:
    best = {ALL: RATES[Scale.SMALL][0], PLAIN: RATES[Scale.SMALL][2]}
    tried = rate_trials(Scale.SMALL)
    tuning = finished(tried, lambda own: 2.0 + abs(own[RATE] - best[own[ARM]]))
    trials = arm_trials(Scale.SMALL, {"rates": tuning})
    seeds = {values_of(trial)["seed"] for trial in trials}
    assert {values_of(trial)["seed"] for trial in tried} == {RATES_SEED}
    assert len(seeds) == 3 and RATES_SEED not in seeds
    for trial in trials:
        values = values_of(trial)
        like_plain = values[ARM] in (PLAIN, PLAIN_DEDUPLICATED)
        assert values[RATE] == best[PLAIN if like_plain else ALL]


def test_a_dry_run_knows_no_best_rate() -> None:
    assert all(RATE not in values_of(trial) for trial in arm_trials(Scale.SMALL, {}))


def test_kinds_count_alike_whatever_their_size() -> None:
    bits = {"guides": [100.0, 100.0, 200.0], "code": [300.0, 900.0, 300.0]}
    assert seed_bits(bits, SIZES) == pytest.approx(2.0)


def test_the_interval_over_files_holds_their_difference() -> None:
    other = [{kind: [2.0 * size for size in sizes] for kind, sizes in SIZES.items()}]
    tenth = [{kind: [0.9 * bits for bits in own] for kind, own in other[0].items()}]
    assert document_interval(tenth, other, SIZES) == pytest.approx((0.1, 0.1))
    one = [{kind: [own[0] * 0.5, *own[1:]] for kind, own in other[0].items()}]
    low, high = document_interval(one, other, SIZES)
    assert low == pytest.approx(0, abs=1e-9) and high > 0.1
