"""SlimPajama-DC (2309.10818): duplicates removed nowhere, within sources or across them, and
mixtures of rising diversity, all at equal tokens.

The paper holds that removal across sources beats removal within each. Its largest source,
CommonCrawl, is made of dumps that hold many pages again: within a dump there is little to remove,
across dumps 63.8 % of the bytes were. The recipe ``slimpajama-dc/releases`` has series of releases
for dumps: eleven pages of Django's guides recur in all thirteen releases, the others are read from
the last one only. Both are one kind of text, told apart by their first letter, so that the corpora
differ in the number of times that a page recurs and not in its text. The mixtures are of
four of the trunk's sources, and are scored on kinds of text that none of them holds.

Fixed before any run on the releases that is reported: recipe, steps, seeds, the split, the figures
and the tolerance (two standard errors then; Student's t, which asks for more, now). All corpora
hold out the same pages, in every version; bits per byte are over all of their bytes, each page
once. A pilot of one other seed, judged on the validation split, came before the last two were
written down; the recipe was not changed after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from feldspar.corpus.document import Document
from feldspar.corpus.store import documents, sources
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
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
from feldspar.papers.slimpajama_dc.corpora import (
    SPLIT,
    Repetition,
    bits_per_byte,
    common_held_out,
    repetition_section,
    repetitions,
)
from feldspar.papers.slimpajama_dc.unseen import unseen_baselines, unseen_texts
from feldspar.recipe.load import load_recipe
from feldspar.report.bars import heat_map
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, half_widths_of, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult

BitsByPart = dict[str, dict[str, list[float]]]
"""Bits per byte of each seed, by what was trained and by part: a source, or a kind of page."""

RELEASES = "slimpajama-dc/releases"
DUPLICATES = "choose.duplicates"
SCOPES = ("none", "local", "global")
RECURRING, ONCE = "recurring pages", "pages of one release"
RECIPE = "slimpajama-dc/small"
SCORE = "validation/bits_per_byte"
SCOPE_SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
MIXTURE_SEEDS = {Scale.QUICK: 1, Scale.SMALL: 5}
QUICK_STEPS = 60
MIXTURE = "choose.mixture"
MOST_DIVERSE = {"all", "dc-6"}
"""The mixture of all sources, by its name in the small recipe and in the paper's."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return scopes and mixtures; at the paper's scale the models of its table."""
    if scale is Scale.PAPER:
        return (Stage("mixtures", "slimpajama-dc/paper", lambda _: paper_trials(), SCORE),)
    return (
        Stage("scopes", RELEASES, lambda _: scope_trials(scale), SCORE, keeps_weights=True),
        Stage("mixtures", RECIPE, lambda _: mixture_trials(scale), SCORE, keeps_weights=True),
    )


def mixtures() -> list[str]:
    """Return the mixtures of the small recipe, in the order of rising diversity."""
    return list(load_recipe(RECIPE).recipe.choices["mixture"])


def scope_trials(scale: Scale) -> list[Trial]:
    """Return the three corpora, each in its natural mixture; seeds fastest."""
    return _seeded(DUPLICATES, list(SCOPES), SCOPE_SEEDS[scale], scale)


def mixture_trials(scale: Scale) -> list[Trial]:
    """Return every mixture of the corpus without duplicates, seeds fastest."""
    return _seeded(MIXTURE, mixtures(), MIXTURE_SEEDS[scale], scale)


def paper_trials() -> list[Trial]:
    """Return DC-1 to DC-6: the others hold out other text, so that bits do not compare."""
    return [trial_of({MIXTURE: f"dc-{number}"}, 0) for number in range(1, 7)]


def _seeded(key: str, values: Sequence[str], seeds: int, scale: Scale) -> list[Trial]:
    shortened = [f"phases.0.length={QUICK_STEPS} steps"] if scale is Scale.QUICK else []
    return [trial_of({key: value}, seed, shortened) for value in values for seed in range(seeds)]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of mixtures and, below the paper's scale, of the three corpora."""
    found: Figures = {}
    if "mixtures" in results:
        runs = results["mixtures"]
        at_paper = scale is Scale.PAPER
        found = measure_paper(runs) if at_paper else measure_mixtures(runs, scale)
    return found | (measure_scopes(results["scopes"]) if "scopes" in results else {})


def measure_paper(runs: Sequence[TrialResult]) -> Figures:
    """Read the validation's bits per byte of the paper's mixtures."""
    return {
        "mixtures": grouped(runs, MIXTURE, validation_bits(runs)),
        "training_loss": training_losses(runs),
    }


def measure_mixtures(runs: Sequence[TrialResult], scale: Scale) -> Figures:
    """Measure every run, a trigram and xz on the kinds of text that no mixture holds."""
    texts = unseen_texts(documents_of(Data(RECIPE)))
    measured = bits_per_byte([run.folder for run in runs], texts)
    shortened = (f"phases.0.length={QUICK_STEPS} steps",) if scale is Scale.QUICK else ()
    return {
        "mixtures": grouped(runs, MIXTURE, measured),
        "training_loss": training_losses(runs),
        "baselines": unseen_baselines(RECIPE, shortened, texts),
    }


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    by_mixture = figures["mixtures"]
    judged = [
        diversity_claim(by_mixture, figures.get("baselines", {}), claims),
        loss_claim(by_mixture, figures["training_loss"], claims),
    ]
    figure = matrix_figure("Held-out bits per byte: mixture and kind of text", by_mixture)
    means = {name: means_over_parts(by_source) for name, by_source in by_mixture.items()}
    sections = [matrix_section("Mixtures", by_mixture, means, "mean", figure)]
    if scale is Scale.PAPER:
        return Findings(tuple(judged), tuple(sections), figure)
    scopes = judge_scopes(figures, claims)
    return Findings((*scopes.claims, *judged), (*scopes.sections, *sections), scopes.figure)


def grouped(
    runs: Sequence[TrialResult], key: str, measured: Sequence[Mapping[str, float]]
) -> BitsByPart:
    """Group runs by the override ``key``, the seeds of one value together."""
    found: BitsByPart = {}
    for run, values in zip(runs, measured, strict=True):
        by_part = found.setdefault(values_of(run.trial)[key], {})
        for part, value in values.items():
            by_part.setdefault(part, []).append(value)
    return found


def means_over_parts(by_part: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the mean over parts of every seed, each part counted once."""
    return [fmean(values) for values in zip(*by_part.values(), strict=True)]


def matrix_section(
    title: str,
    found: BitsByPart,
    totals: Mapping[str, Sequence[float]],
    total: str,
    figure: Figure | None = None,
) -> Section:
    """Return a table: rows of training text, columns of parts, and last the ``totals``."""
    parts = list(next(iter(found.values())))
    rows = [
        [row, *(f"{fmean(by_part[part]):.4f}" for part in parts), f"{fmean(totals[row]):.4f}"]
        for row, by_part in found.items()
    ]
    words = "Held-out bits per byte, mean over seeds; lower is better."
    figures = [figure] if figure else []
    return Section(title, [words], [Table(["trained on", *parts, total], rows)], figures)


@dataclass(frozen=True)
class ScopeFindings:
    """The claims, tables and drawing of the runs on the three corpora."""

    claims: list[Claim]
    sections: list[Section]
    figure: Figure


def data_of(scope: str) -> Data:
    """Return the shards of the releases with duplicates removed in ``scope``."""
    return Data(RELEASES, (f"{DUPLICATES}={scope}",))


def measure_scopes(runs: Sequence[TrialResult]) -> Figures:
    """Measure every run on the pages that all corpora hold out."""
    folders = {scope: documents_of(data_of(scope)) for scope in SCOPES}
    parts = parts_of(
        common_held_out(folders["global"], [folders["none"], folders["local"]]),
        recurring_groups(folders["none"]),
    )
    measured = bits_per_byte(
        [run.folder for run in runs],
        {part: [page.text for page in pages] for part, pages in parts.items()},
    )
    by_part = grouped(runs, DUPLICATES, measured)
    sizes = {part: sum(len(page.text.encode()) for page in pages) for part, pages in parts.items()}
    repeated = repetitions(folders, "global", runs[0].tokens)
    return {
        "duplicates": by_part,
        "duplicates_all": {scope: over_all_bytes(by_part[scope], sizes) for scope in SCOPES},
        "held_out": {
            part: {"pages": len(pages), "bytes": sizes[part]} for part, pages in parts.items()
        },
        "repetition": {scope: asdict(item) for scope, item in repeated.items()},
    }


def judge_scopes(figures: Figures, claims: StatedClaims) -> ScopeFindings:
    """Make the claims, tables and the drawing of the three corpora."""
    by_part, bits = figures["duplicates"], figures["duplicates_all"]
    repeated = {scope: Repetition(**own) for scope, own in figures["repetition"].items()}
    figure = readings_figure(by_part, bits, repeated)
    return ScopeFindings(
        [scope_claim(other, bits, repeated, claims) for other in ("local", "none")],
        [
            matrix_section("Duplicates", by_part, bits, "all", figure),
            repetition_section(repeated),
        ],
        figure,
    )


def documents_of(data: Data) -> Path:
    """Return the folder of the documents of ``data``."""
    corpus = load_recipe(data.recipe, list(data.overrides)).recipe.corpus
    assert corpus is not None, "a shipped recipe"
    return corpus.path


def recurring_groups(folder: Path) -> set[str]:
    """Return the held-out pages that more than one source of ``folder`` has."""
    found: list[str] = []
    for source in sources(folder):
        found += {document.group for document in documents(folder, SPLIT, source)}
    return {group for group in found if found.count(group) > 1}


def parts_of(held_out: Sequence[Document], recurring: set[str]) -> dict[str, list[Document]]:
    """Return the held-out pages that recur, and the others; a part without pages is left out."""
    parts: dict[str, list[Document]] = {RECURRING: [], ONCE: []}
    for page in held_out:
        parts[RECURRING if page.group in recurring else ONCE].append(page)
    return {part: pages for part, pages in parts.items() if pages}


def over_all_bytes(by_part: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> list[float]:
    """Return the bits per byte of every seed over all parts together."""
    total = sum(sizes.values())
    return [
        sum(bits * sizes[part] for part, bits in zip(by_part, values, strict=True)) / total
        for values in zip(*by_part.values(), strict=True)
    ]


def readings_figure(
    by_part: BitsByPart,
    bits: Mapping[str, Sequence[float]],
    repeated: Mapping[str, Repetition],
) -> Figure:
    """Draw held-out bits per byte over the readings of a recurring text, from global to none."""
    scopes = sorted(bits, key=lambda scope: repeated[scope].recurring)
    readings = [repeated[scope].recurring for scope in scopes]
    parts = [
        Series(
            part,
            readings,
            [fmean(by_part[scope][part]) for scope in scopes],
            "points",
            is_reference=True,
        )
        for part in by_part[scopes[0]]
    ]
    halves = half_widths_of([bits[scope] for scope in scopes])
    means = [fmean(bits[scope]) for scope in scopes]
    every = Series("all, 95 % over seeds", readings, means, "points", halves)
    ends = ", ".join(f"{scope} {mean:.3f}" for scope, mean in zip(scopes, means, strict=True))
    return line_figure(
        f"Held-out bits per byte by the scope in which duplicates are removed: {ends}",
        [every, *parts],
        "readings of a recurring text in one run",
        "bits per byte",
    )


def scope_claim(
    other: str,
    bits: Mapping[str, Sequence[float]],
    repeated: Mapping[str, Repetition],
    claims: StatedClaims,
) -> Claim:
    """Judge duplicates removed across sources against another corpus."""
    name = f"global-against-{other}"
    gain = Gain.of(bits["global"], bits[other])
    ours, theirs = repeated["global"], repeated[other]
    return claims.judged(
        name,
        f"held-out bits per byte: {fmean(bits['global']):.4f} against "
        f"{fmean(bits[other]):.4f}, {gain.lower_or_higher}; "
        f"{1 - ours.bytes / theirs.bytes:.1%} of its bytes are removed, and a recurring "
        f"text is read {ours.recurring:.1f} times instead of {theirs.recurring:.1f}",
        held=gain.exceeds(claims.limit(name, "noise")),
        with_copies=theirs.worn,
        without=ours.worn,
    )


def validation_bits(runs: Sequence[TrialResult]) -> list[dict[str, float]]:
    """Return the validation's bits per byte of each run, by source."""
    return [
        {
            name.split("/")[1]: value
            for name, value in run.metrics.items()
            if name.startswith("validation/") and name.count("/") == 2 and name.endswith("_byte")
        }
        for run in runs
    ]


def training_losses(runs: Sequence[TrialResult]) -> dict[str, float]:
    """Return the mean training loss at the end over seeds, by mixture."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(values_of(run.trial)[MIXTURE], []).append(run.metrics[TRAIN_LOSS])
    return {name: fmean(losses) for name, losses in found.items()}


def diversity_claim(
    found: BitsByPart, baselines: Mapping[str, Mapping[str, float]], claims: StatedClaims
) -> Claim:
    """Judge the most diverse mixture against every other one; ``baselines`` stand beside it."""
    name = "diversity"
    without_model = ", ".join(
        f"{baseline} {fmean(own.values()):.4f}" for baseline, own in baselines.items()
    )
    bits = {mixture: means_over_parts(by_source) for mixture, by_source in found.items()}
    (diverse,) = MOST_DIVERSE & set(bits)
    noise = claims.limit(name, "noise")
    gains = {other: Gain.of(bits[diverse], own) for other, own in bits.items() if other != diverse}
    unclear = {other: gain for other, gain in gains.items() if not gain.exceeds(noise)}
    ranked = sorted(bits, key=lambda mixture: fmean(bits[mixture]))
    best = next(mixture for mixture in ranked if mixture != diverse)
    against = {f"{diverse} than {other}": gain for other, gain in gains.items()}
    return claims.judged(
        name,
        ", ".join(f"{mixture} {fmean(bits[mixture]):.4f}" for mixture in ranked)
        + " bits per byte, mean over the kinds; "
        + ", ".join(
            f"{other} {gain.lower_or_higher}{power(gain)}" for other, gain in against.items()
        )
        + (f"; without a model: {without_model}" if without_model else ""),
        short=f"{diverse} against the best other mixture ({best}): {gains[best].lower_or_higher}",
        held=not unclear,
        diverse=diverse,
        unclear=", ".join(f"{other} ({gain.lower_or_higher})" for other, gain in unclear.items()),
    )


def loss_claim(found: BitsByPart, losses: Mapping[str, float], claims: StatedClaims) -> Claim:
    """Judge the mixture of the lowest training loss against the best one."""
    bits = {mixture: means_over_parts(by_source) for mixture, by_source in found.items()}
    best = min(bits, key=lambda mixture: fmean(bits[mixture]))
    lowest = min(losses, key=lambda mixture: losses[mixture])
    return claims.lower(
        "loss-misleads",
        f"{lowest} has the lowest training loss ({losses[lowest]:.4f}); {best} is "
        "best on average on held-out text",
        Gain.of(bits[best], bits[lowest]),
    )


def matrix_figure(title: str, found: BitsByPart) -> Figure:
    """Draw the matrix as a heat map."""
    names = list(next(iter(found.values())))
    values = [[fmean(by_source[name]) for name in names] for by_source in found.values()]
    return heat_map(title, list(found), names, values, "source", "mixture", format_spec=".3f")


PAPER = Paper(
    name="slimpajama-dc",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    more_data=tuple(data_of(scope) for scope in SCOPES),
    separate=frozenset(("scopes", "mixtures")),
    stages=stages,
    measure=measure,
    judge=judge,
)
