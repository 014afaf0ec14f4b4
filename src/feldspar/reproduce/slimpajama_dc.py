"""SlimPajama-DC (2309.10818): duplicates removed nowhere, within sources or across them, and
mixtures of rising diversity, all at equal tokens.

The text is the quickstart's, whose releases of one project are natural duplicates. The corpora are
compared on held-out documents that none of them trains on, the mixtures on the same validation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, heat_map
from feldspar.report.page import Section, Table
from feldspar.reproduce.claims import Claim, judged, not_run
from feldspar.reproduce.common_held_out import bits_per_byte, common_held_out
from feldspar.reproduce.cost import on_accelerators, run_cost
from feldspar.reproduce.ladder import Gain
from feldspar.reproduce.paper import (
    QUICKSTART_BYTES,
    Data,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    values_of,
)
from feldspar.study.sweep import trial_of
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult

RECIPE = "slimpajama-dc/small"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = 60
MIXTURE, DUPLICATES = "choose.mixture", "choose.duplicates"
SCOPES = {"none": "kept", "local": "removed within sources", "global": "removed across sources"}
PAPER_SCOPES = (
    "RedPajama-1.3B (duplicates removed within sources) 38.0, DC-6 40.0 on average over four "
    "tasks; indirect, the mixtures differ too"
)
MOST_DIVERSE = {"all", "dc-6"}
"""The mixture of all sources, by its name in the small recipe and in the paper's."""
HELD_OUT_BYTES = 100_000
"""Of each source, in whole documents."""

BitsBySource = dict[str, dict[str, list[float]]]
"""Bits per byte of each seed, by what was trained and by source."""


def data_of(scope: str) -> Data:
    """The shards of the quickstart's documents with duplicates removed in ``scope``."""
    if scope == "global":
        return QUICKSTART_BYTES
    none = ("corpus.deduplicate=null", "corpus.split.decontamination=null")
    return Data(
        QUICKSTART_BYTES.recipe,
        (
            "tokenizer.vocab_size=257",
            *(none if scope == "none" else ("corpus.deduplicate={scope: local}",)),
            f"corpus.path=data/quickstart-{scope}/documents",
            f"shards.path=data/quickstart-{scope}/bytes",
        ),
    )


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Scopes and mixtures; at the paper's scale the models of its table."""
    if scale is Scale.PAPER:
        return (Stage("mixtures", "slimpajama-dc/paper", lambda _: paper_trials(), SCORE),)
    return (
        Stage("scopes", RECIPE, lambda _: scope_trials(scale), SCORE, keeps_weights=True),
        Stage("mixtures", RECIPE, lambda _: mixture_trials(scale), SCORE),
    )


def mixtures() -> list[str]:
    """The mixtures of the small recipe, in the order of rising diversity."""
    return list(load_recipe(RECIPE).recipe.choices["mixture"])


def scope_trials(scale: Scale) -> list[Trial]:
    """The three corpora in one mixture, so that nothing but duplicates differs; seeds fastest."""
    return _seeded(DUPLICATES, list(SCOPES), scale, [])


def mixture_trials(scale: Scale) -> list[Trial]:
    """Every mixture of the corpus without duplicates, seeds fastest."""
    return _seeded(MIXTURE, mixtures(), scale, [])


def paper_trials() -> list[Trial]:
    """DC-1 to DC-6: the others hold out other text, so that bits per byte do not compare."""
    return [trial_of({MIXTURE: f"dc-{number}"}, 0) for number in range(1, 7)]


def _seeded(key: str, values: Sequence[str], scale: Scale, extra: list[str]) -> list[Trial]:
    shortened = [f"phases.0.length={QUICK_STEPS} steps"] if scale is Scale.QUICK else []
    return [
        trial_of({key: value}, seed, [*extra, *shortened])
        for value in values
        for seed in range(SEEDS[scale])
    ]


def findings(results: Results, scale: Scale) -> Findings:
    """Claims, tables and figures."""
    cost = on_accelerators([run_cost("slimpajama-dc/paper", trial) for trial in paper_trials()])
    by_mixture = grouped(results["mixtures"], MIXTURE, validation_bits(results["mixtures"]))
    losses = training_losses(results["mixtures"])
    claims = [*mixture_claims(by_mixture, losses, cost), *claims_not_run(cost)]
    figure = matrix_figure("Held-out bits per byte: mixture and source", by_mixture)
    sections = [matrix_section("Mixtures", by_mixture, figure)]
    figures = {"mixtures": by_mixture, "training_loss": losses}
    if scale is not Scale.PAPER:
        runs = results["scopes"]
        measured = bits_per_byte([run.folder for run in runs], held_out_of_the_corpora())
        by_scope = grouped(runs, DUPLICATES, measured)
        claims = [*scope_claims(by_scope, cost), *claims]
        sections.insert(0, matrix_section("Duplicates", by_scope))
        figures["duplicates"] = by_scope
    return Findings(tuple(claims), tuple(sections), figure, figures)


def held_out_of_the_corpora() -> dict[str, list[str]]:
    """Texts that none of the three corpora trains on."""
    folders = {scope: documents_of(data_of(scope)) for scope in SCOPES}
    others = [folder for scope, folder in folders.items() if scope != "global"]
    return common_held_out(folders["global"], others, HELD_OUT_BYTES)


def documents_of(data: Data) -> Path:
    """Where the documents of ``data`` lie."""
    corpus = load_recipe(data.recipe, list(data.overrides)).recipe.corpus
    assert corpus is not None, "a shipped recipe"
    return corpus.path


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


def grouped(
    runs: Sequence[TrialResult], key: str, measured: Sequence[Mapping[str, float]]
) -> BitsBySource:
    """Seeds of one thing together."""
    found: BitsBySource = {}
    for run, values in zip(runs, measured, strict=True):
        by_source = found.setdefault(values_of(run.trial)[key], {})
        for source, value in values.items():
            by_source.setdefault(source, []).append(value)
    return found


def training_losses(runs: Sequence[TrialResult]) -> dict[str, float]:
    """Mean training loss at the end over seeds, by mixture."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(values_of(run.trial)[MIXTURE], []).append(run.metrics[TRAIN_LOSS])
    return {name: fmean(losses) for name, losses in found.items()}


def means_over_sources(by_source: Mapping[str, Sequence[float]]) -> list[float]:
    """The mean over sources, each counted once, of every seed."""
    return [fmean(values) for values in zip(*by_source.values(), strict=True)]


def scope_claims(found: BitsBySource, cost: str) -> list[Claim]:
    """Duplicates removed across sources against not at all, and against within sources."""
    bits = {scope: means_over_sources(found[scope]) for scope in SCOPES}
    claims = []
    for other in ("none", "local"):
        if bits["global"] == bits[other]:
            claims.append(same_corpus_claim(other, cost))
            continue
        gain = Gain.of(bits["global"], bits[other])
        claims.append(
            judged(
                f"global-against-{other}",
                statement="At equal tokens, text without duplicates across sources is better than "
                f"text with duplicates {SCOPES[other]}.",
                paper=PAPER_SCOPES,
                ours=f"held-out bits per byte, mean over sources: {fmean(bits['global']):.4f} "
                f"against {fmean(bits[other]):.4f}, lower by {gain}",
                tolerance=f"lower by more than {gain.threshold:.2%}: two standard errors, and at "
                "least half a percent",
                held=gain.is_clear,
                same_quantity=False,
                why="The same tokens hold more different text.",
                why_not="A run this short meets few documents twice, and a model this small learns "
                "almost as much from the second copy.",
                cost=cost,
            )
        )
    return claims


def same_corpus_claim(other: str, cost: str) -> Claim:
    """Where runs agree to the last bit, they read the same text."""
    return not_run(
        f"global-against-{other}",
        statement="At equal tokens, text without duplicates across sources is better than text "
        f"with duplicates {SCOPES[other]}.",
        paper=PAPER_SCOPES,
        reason="The corpora are the same to the byte: no document here has a duplicate in another "
        "source.",
        cost=cost,
    )


def mixture_claims(found: BitsBySource, losses: Mapping[str, float], cost: str) -> list[Claim]:
    """Diversity helps on average; each mixture is good at what it holds; losses mislead."""
    bits = {name: means_over_sources(by_source) for name, by_source in found.items()}
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
            tolerance=f"{diverse} lower than every other by more than the noise of the seed",
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
            tolerance="the mixture of the lowest training loss is not the best",
            held=lowest != ranked[0],
            same_quantity=False,
            why="A mixture's training loss is measured on itself: easy text has a low one.",
            why_not="Here one mixture has both.",
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


def matrix_section(title: str, found: BitsBySource, figure: Figure | None = None) -> Section:
    """Rows of what was trained, columns of sources, and the mean."""
    names = list(next(iter(found.values())))
    rows = [
        [
            row,
            *(f"{fmean(by_source[name]):.4f}" for name in names),
            f"{fmean(means_over_sources(by_source)):.4f}",
        ]
        for row, by_source in found.items()
    ]
    words = "Held-out bits per byte, mean over seeds; lower is better."
    figures = [figure] if figure else []
    return Section(title, [words], [Table(["trained on", *names, "mean"], rows)], figures)


def matrix_figure(title: str, found: BitsBySource) -> Figure:
    """The matrix as a heat map."""
    names = list(next(iter(found.values())))
    values = [[fmean(by_source[name]) for name in names] for by_source in found.values()]
    return heat_map(title, list(found), names, values, "source", "mixture", format_spec=".3f")


def _unclear(gains: Mapping[str, Gain]) -> str:
    return ", ".join(f"{name} ({gain})" for name, gain in gains.items() if not gain.is_clear)


PAPER = Paper(
    name="slimpajama-dc",
    title="SlimPajama-DC: data combinations",
    number="2309.10818",
    data=QUICKSTART_BYTES,
    more_data=(data_of("none"), data_of("local")),
    stages=stages,
    findings=findings,
)
