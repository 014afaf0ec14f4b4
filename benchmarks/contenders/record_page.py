"""The page of the quickstart's speed record, computed from the record's figures alone."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from feldspar.core.student_t import half_width
from feldspar.papers.kit.gain import Gain, power

NOISE = 0.005
"""The least mean gain of a better attempt."""
INTRODUCTION = (
    "This page shows which changes of the quickstart's recipe give a better model in the same "
    "time, and which do not. `python benchmarks/quickstart_record.py` prints it and says how runs "
    "are made and scored. Time is processor time of one thread, so that other work on the machine "
    "does not matter."
)
THE_RECORD = (
    "Bits per byte of all test documents after {seconds:g} s of one thread, which are about five "
    "minutes of two cores. Gains are paired by seed. Seeds and documents are not those of the "
    "screening, by which the recipe was chosen."
)
THE_ATTEMPTS = (
    "Bits per byte of excerpts of validation documents after {seconds:g} s of one thread. Each "
    "attempt changes one thing. It is better where its mean gain is above {noise:.1%} and the 95 % "
    "interval lies above zero, and worse where the interval lies below zero. A run is shorter than "
    "the record's: what serves a short run (a high rate, a small model) need not serve a longer "
    "one."
)
HEAD = (
    "attempt",
    "compared with",
    "tokens",
    "tokens a second",
    "bits per byte, 95 % interval",
    "gain",
    "verdict",
)


def page(record: Mapping[str, Any]) -> str:
    """Return the record as Markdown."""
    screening, final = record["stages"]["screening"], record["stages"]["record"]
    lines = [
        "# The quickstart's speed record",
        "",
        INTRODUCTION,
        "",
        *record_lines(final),
        "## Attempts",
        THE_ATTEMPTS.format(noise=NOISE, **screening),
        "",
        *rows_of(screening["attempts"]),
        "",
        f"Machine: {record['machine']}. One thread a run. {record['date']}.",
    ]
    return "\n".join(lines) + "\n"


def record_lines(final: Mapping[str, Any]) -> list[str]:
    """Return the section of the runs at the record's own time; nothing where none is finished."""
    if not final["attempts"]:
        return []
    return [
        "## The record",
        THE_RECORD.format(**final),
        "",
        *rows_of(final["attempts"]),
        "",
        *baseline_lines(final["attempts"]),
    ]


def rows_of(attempts: Mapping[str, Any]) -> list[str]:
    """Return a table with a row for each attempt."""
    lines = [cells_of(HEAD), "|---" * len(HEAD) + "|"]
    for name, row in attempts.items():
        base = attempts.get(row["base"])
        tokens = next(iter(row["runs"].values()))["tokens"]
        speeds = ", ".join(f"{speed:,.0f}" for speed in row["tokens_per_second"])
        cells = [
            f"{name}: {row['change']}",
            row["base"] or "-",
            f"{tokens:,}",
            speeds,
            mean_in_words(scores(row)),
            *gain_and_verdict(row, base),
        ]
        lines.append(cells_of(cells))
    return lines


def cells_of(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(cells) + " |"


def scores(row: Mapping[str, Any]) -> list[float | None]:
    """Return the bits per byte of each seed; None for a run that diverged."""
    return [run["bits_per_byte"] for run in row["runs"].values()]


def mean_in_words(values: Sequence[float | None]) -> str:
    """Return the mean with half its 95 % interval."""
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return "diverged"
    half = half_width(finite)
    return f"{fmean(finite):.4f}" + (" (one seed)" if half is None else f" +- {half:.4f}")


def gain_and_verdict(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    """Return the gain over the base in words, and the verdict."""
    if base is None:
        return ["-", "-"]
    shared = [seed for seed in row["runs"] if seed in base["runs"]]
    own = [row["runs"][seed]["bits_per_byte"] for seed in shared]
    others = [base["runs"][seed]["bits_per_byte"] for seed in shared]
    if not shared:
        return ["-", "-"]
    if None in own:
        return ["-", "diverged"]
    gain = Gain.of(own, others)
    return [str(gain), verdict(gain)]


def verdict(gain: Gain) -> str:
    """Judge an attempt by its gain; one seed tells nothing."""
    if gain.half_width is None:
        return "-"
    if gain.exceeds(NOISE):
        return "better"
    return "worse" if gain.high < 0 else f"not told apart{power(gain)}"


def baseline_lines(attempts: Mapping[str, Any]) -> list[str]:
    """Return a paragraph with the baselines' bits per byte on the same documents.

    The trigram has read the tokens of a run. It is best where it read most, so that run is taken.
    """
    runs = [run for row in attempts.values() for run in row["runs"].values() if "baselines" in run]
    if not runs:
        return []
    run = max(runs, key=lambda run: run["tokens"])
    shown = ", ".join(f"{name} {value:.3f}" for name, value in run["baselines"].items())
    text = (
        f"Baselines on the same documents: {shown}. The trigram, `ngram`, was fitted on "
        f"{run['tokens']:,} tokens of training text, the most that an attempt reads."
    )
    return [text, ""]
