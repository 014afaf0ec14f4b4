"""SlimPajama-DC (2309.10818): duplicates removed nowhere, within sources or across them, and
mixtures of rising diversity, all at equal tokens.

The corpora of the first are releases of one project, see ``releases``; the mixtures are of the
quickstart's sources, on the same validation.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.cost import on_accelerators, run_cost
from feldspar.papers.kit.ladder import CLEARLY, Gain
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    values_of,
)
from feldspar.papers.slimpajama_dc.bits_by_part import (
    BitsByPart,
    grouped,
    matrix_section,
    means_over_parts,
)
from feldspar.papers.slimpajama_dc.releases import (
    DESIGNED_LATER,
    DUPLICATES,
    SCOPES,
    data_of,
    judge_scopes,
    measure_scopes,
)
from feldspar.papers.slimpajama_dc.releases import RECIPE as RELEASES
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, heat_map
from feldspar.study.sweep import trial_of
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult

RECIPE = "slimpajama-dc/small"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = 60
MIXTURE = "choose.mixture"
MOST_DIVERSE = {"all", "dc-6"}
"""The mixture of all sources, by its name in the small recipe and in the paper's."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Scopes and mixtures; at the paper's scale the models of its table."""
    if scale is Scale.PAPER:
        return (Stage("mixtures", "slimpajama-dc/paper", lambda _: paper_trials(), SCORE),)
    return (
        Stage("scopes", RELEASES, lambda _: scope_trials(scale), SCORE, keeps_weights=True),
        Stage("mixtures", RECIPE, lambda _: mixture_trials(scale), SCORE),
    )


def mixtures() -> list[str]:
    """The mixtures of the small recipe, in the order of rising diversity."""
    return list(load_recipe(RECIPE).recipe.choices["mixture"])


def scope_trials(scale: Scale) -> list[Trial]:
    """The three corpora, each in its natural mixture; seeds fastest."""
    return _seeded(DUPLICATES, list(SCOPES), scale)


def mixture_trials(scale: Scale) -> list[Trial]:
    """Every mixture of the corpus without duplicates, seeds fastest."""
    return _seeded(MIXTURE, mixtures(), scale)


def paper_trials() -> list[Trial]:
    """DC-1 to DC-6: the others hold out other text, so that bits per byte do not compare."""
    return [trial_of({MIXTURE: f"dc-{number}"}, 0) for number in range(1, 7)]


def _seeded(key: str, values: Sequence[str], scale: Scale) -> list[Trial]:
    shortened = [f"phases.0.length={QUICK_STEPS} steps"] if scale is Scale.QUICK else []
    return [
        trial_of({key: value}, seed, shortened) for value in values for seed in range(SEEDS[scale])
    ]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of mixtures and, below the paper's scale, of the three corpora."""
    runs = results["mixtures"]
    found: Figures = {
        "mixtures": grouped(runs, MIXTURE, validation_bits(runs)),
        "training_loss": training_losses(runs),
    }
    return found if scale is Scale.PAPER else found | measure_scopes(results["scopes"])


def judge(figures: Figures, scale: Scale) -> Findings:
    """Make claims, tables and drawings."""
    cost = on_accelerators([run_cost("slimpajama-dc/paper", trial) for trial in paper_trials()])
    by_mixture = figures["mixtures"]
    claims = [*mixture_claims(by_mixture, figures["training_loss"], cost), *claims_not_run(cost)]
    figure = matrix_figure("Held-out bits per byte: mixture and source", by_mixture)
    means = {name: means_over_parts(by_source) for name, by_source in by_mixture.items()}
    sections = [matrix_section("Mixtures", by_mixture, means, "mean", figure)]
    if scale is Scale.PAPER:
        return Findings(tuple(claims), tuple(sections), figure)
    scopes = judge_scopes(figures, cost)
    return Findings(
        (*scopes.claims, *claims),
        (*scopes.sections, *sections),
        scopes.figure,
        (DESIGNED_LATER,) if scale is Scale.SMALL else (),
    )


def validation_bits(runs: Sequence[TrialResult]) -> list[dict[str, float]]:
    """What validation measured of each run, by source."""
    return [
        {
            name.split("/")[1]: value
            for name, value in run.metrics.items()
            if name.startswith("validation/") and name.count("/") == 2 and name.endswith("_byte")
        }
        for run in runs
    ]


def training_losses(runs: Sequence[TrialResult]) -> dict[str, float]:
    """Mean training loss at the end over seeds, by mixture."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(values_of(run.trial)[MIXTURE], []).append(run.metrics[TRAIN_LOSS])
    return {name: fmean(losses) for name, losses in found.items()}


def mixture_claims(found: BitsByPart, losses: Mapping[str, float], cost: str) -> list[Claim]:
    """Diversity helps on average; each mixture is good at what it holds; losses mislead."""
    bits = {name: means_over_parts(by_source) for name, by_source in found.items()}
    (diverse,) = MOST_DIVERSE & set(bits)
    gains = {name: Gain.of(bits[diverse], own) for name, own in bits.items() if name != diverse}
    ranked = sorted(bits, key=lambda name: fmean(bits[name]))
    lowest = min(losses, key=lambda name: losses[name])
    return [
        judged(
            "diversity",
            statement="After duplicates are removed, the most diverse mixture is best on average.",
            paper="DC-6 40.0 on average over four tasks, DC-1 to DC-5 37.6 to 38.6",
            ours=", ".join(f"{name} {fmean(bits[name]):.4f}" for name in ranked)
            + " bits per byte, mean over sources",
            tolerance=f"{diverse} lower than every other {CLEARLY}",
            held=all(gain.is_clear for gain in gains.values()),
            same_quantity=False,
            why="Text of a kind is best predicted by who has read that kind.",
            why_not=f"Not above the noise against: {_unclear(gains)}.",
            cost=cost,
        ),
        judged(
            "loss-misleads",
            statement="The order by training loss is not the order by quality.",
            paper="the code-rich DC-3 has the lowest loss, RefinedWeb the highest and the best "
            "average",
            ours=f"{lowest} has the lowest training loss ({losses[lowest]:.4f}); {ranked[0]} is "
            "best on held-out text of all sources",
            tolerance=f"the best mixture is lower {CLEARLY} than the one of the lowest training "
            "loss",
            held=Gain.of(bits[ranked[0]], bits[lowest]).is_clear,
            same_quantity=False,
            why="A mixture's training loss is measured on itself: easy text has a low one.",
            why_not="Here one mixture has both, or the seeds do not tell.",
            cost=cost,
        ),
    ]


def claims_not_run(cost: str) -> list[Claim]:
    """What only models of the paper's size can show."""
    return [
        not_run(
            "benchmarks",
            statement="DC-6 beats RedPajama-1.3B on ARC, HellaSwag, MMLU and TruthfulQA.",
            paper="40.0 against 38.0 on average",
            reason="A model of this size is at chance on all four.",
            cost=cost,
        ),
        not_run(
            "progressive-weight-decay",
            statement="Weight decay 0, 0.5, 0.1 in three phases carries a 7B model through large "
            "batches.",
            paper="14.3 M tokens a batch",
            reason="Large batches trouble large models; where the phases end is not known.",
            cost=on_accelerators([run_cost("slimpajama-dc/7b", Trial("7b", ()))]),
        ),
    ]


def matrix_figure(title: str, found: BitsByPart) -> Figure:
    """The matrix as a heat map."""
    names = list(next(iter(found.values())))
    values = [[fmean(by_source[name]) for name in names] for by_source in found.values()]
    return heat_map(title, list(found), names, values, "source", "mixture", format_spec=".3f")


def _unclear(gains: Mapping[str, Gain]) -> str:
    return ", ".join(
        f"{name} ({gain.lower_or_higher})" for name, gain in gains.items() if not gain.is_clear
    )


PAPER = Paper(
    name="slimpajama-dc",
    title="SlimPajama-DC: data combinations",
    number="2309.10818",
    data=Data(RECIPE),
    more_data=tuple(data_of(scope) for scope in SCOPES),
    stages=stages,
    measure=measure,
    judge=judge,
)
