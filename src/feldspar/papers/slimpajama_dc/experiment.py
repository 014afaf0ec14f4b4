"""SlimPajama-DC (2309.10818): duplicates removed nowhere, within sources or across them, and
mixtures of rising diversity, all at equal tokens.

The corpora of the first are releases of one project, see ``releases``; the mixtures are of the
quickstart's sources, on the same validation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
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
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.slimpajama_dc.bits_by_part import (
    BitsByPart,
    grouped,
    matrix_section,
    means_over_parts,
)
from feldspar.papers.slimpajama_dc.releases import (
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


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    by_mixture = figures["mixtures"]
    judged = [
        diversity_claim(by_mixture, claims),
        loss_claim(by_mixture, figures["training_loss"], claims),
    ]
    figure = matrix_figure("Held-out bits per byte: mixture and source", by_mixture)
    means = {name: means_over_parts(by_source) for name, by_source in by_mixture.items()}
    sections = [matrix_section("Mixtures", by_mixture, means, "mean", figure)]
    if scale is Scale.PAPER:
        return Findings(tuple(judged), tuple(sections), figure)
    scopes = judge_scopes(figures, claims)
    return Findings((*scopes.claims, *judged), (*scopes.sections, *sections), scopes.figure)


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


def diversity_claim(found: BitsByPart, claims: StatedClaims) -> Claim:
    """Judge the most diverse mixture against every other one."""
    name = "diversity"
    bits = {mixture: means_over_parts(by_source) for mixture, by_source in found.items()}
    (diverse,) = MOST_DIVERSE & set(bits)
    noise = claims.limit(name, "noise")
    gains = {other: Gain.of(bits[diverse], own) for other, own in bits.items() if other != diverse}
    unclear = {other: gain for other, gain in gains.items() if not gain.exceeds(noise)}
    ranked = sorted(bits, key=lambda mixture: fmean(bits[mixture]))
    return claims.judged(
        name,
        ", ".join(f"{mixture} {fmean(bits[mixture]):.4f}" for mixture in ranked)
        + " bits per byte, mean over sources",
        held=not unclear,
        diverse=diverse,
        unclear=", ".join(f"{other} ({gain.lower_or_higher})" for other, gain in unclear.items()),
    )


def loss_claim(found: BitsByPart, losses: Mapping[str, float], claims: StatedClaims) -> Claim:
    """Judge the mixture of the lowest training loss against the best one."""
    name = "loss-misleads"
    bits = {mixture: means_over_parts(by_source) for mixture, by_source in found.items()}
    best = min(bits, key=lambda mixture: fmean(bits[mixture]))
    lowest = min(losses, key=lambda mixture: losses[mixture])
    return claims.judged(
        name,
        f"{lowest} has the lowest training loss ({losses[lowest]:.4f}); {best} is "
        "best on held-out text of all sources",
        held=Gain.of(bits[best], bits[lowest]).exceeds(claims.limit(name, "noise")),
    )


def matrix_figure(title: str, found: BitsByPart) -> Figure:
    """The matrix as a heat map."""
    names = list(next(iter(found.values())))
    values = [[fmean(by_source[name]) for name in names] for by_source in found.values()]
    return heat_map(title, list(found), names, values, "source", "mixture", format_spec=".3f")


PAPER = Paper(
    name="slimpajama-dc",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    more_data=tuple(data_of(scope) for scope in SCOPES),
    stages=stages,
    measure=measure,
    judge=judge,
)
