"""Muon beside AdamW on the quickstart's text and model, at equal tokens, each at its best rate.

The design was fixed before any result. Each optimizer trains once at every learning rate of the
same grid (factors of two on ``parametrization.learning_rate``; Muon's ratio stays at 1) with the
recipe's seed. The rate with the lowest validation loss then trains again with seeds of its own,
the same for both optimizers. Differences are paired by seed, because a seed fixes initial values
and the order of the data; their mean has a 95 % Student interval. Run:

    python benchmarks/muon_on_quickstart.py --out runs/muon --results docs/results/muon.md

The text is downloaded and tokenized where that is still to do; with the override
``choose.data=offline`` it is that of installed packages. Finished runs are read again, so the same
command goes on after an interruption.
"""

import argparse
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from feldspar.core.files import write_atomically
from feldspar.core.machine import processor
from feldspar.core.student_t import half_width
from feldspar.prepare.build import build_missing
from feldspar.recipe.load import load_recipe
from feldspar.study.sweep import SweepPoint, run_sweep

RECIPE = "quickstart"
OPTIMIZERS = {"AdamW": "optimizer.type=adamw", "Muon": "optimizer.type=muon"}
RATE = "parametrization.learning_rate"
RATES = (2e-3, 4e-3, 8e-3, 16e-3, 32e-3)
"""The recipe's own rate and two factors of two on either side of it."""
SCORE = "validation/loss"
FIRST_SEED = 100


def main() -> None:
    """Train, print the comparison, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/muon-on-quickstart"))
    parser.add_argument("--tokens", default="5e5", help="tokens of each run")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of runs at the best rates")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, a thread each")
    parser.add_argument("--results", type=Path, help="file for the page, beside the output")
    parser.add_argument("overrides", nargs="*", help="key=value of the recipe")
    options = parser.parse_args()
    length = f"phases.0.length={options.tokens} tokens"
    common = [length, "evaluation.every=100% of run", *options.overrides]
    build_missing(load_recipe(RECIPE, common))
    swept: dict[str, list[SweepPoint]] = {}
    final: dict[str, SweepPoint] = {}
    for name, optimizer in OPTIMIZERS.items():
        folder = options.out / name.lower()
        swept[name] = run_sweep(
            RECIPE,
            [*common, optimizer],
            {RATE: RATES},
            folder / "sweep",
            score=SCORE,
            workers=options.workers,
        )
        best = min(swept[name], key=lambda point: point.score)
        (final[name],) = run_sweep(
            RECIPE,
            [*common, optimizer, f"seed={FIRST_SEED}"],
            {RATE: [best.values[RATE]]},
            folder / "seeds",
            seeds=options.seeds,
            score=SCORE,
            workers=options.workers,
        )
    text = page(options.tokens, swept, final)
    print(text)
    if options.results is not None:
        write_atomically(options.results, text)


def page(tokens: str, swept: dict[str, list[SweepPoint]], final: dict[str, SweepPoint]) -> str:
    """Return the comparison as Markdown."""
    sweep_rows = [
        f"| {rate:g} | "
        + " | ".join(f"{points[index].score:.4f}" for points in swept.values())
        + " |"
        for index, rate in enumerate(RATES)
    ]
    rows = []
    for name, point in final.items():
        half = half_width(point.scores)
        interval = "" if half is None else f" +- {half:.4f}"
        rows.append(f"| {name} | {point.values[RATE]:g} | {point.score:.4f}{interval} |")
    adamw, muon = (final[name].scores for name in OPTIMIZERS)
    edges = [name for name, point in final.items() if point.values[RATE] in (RATES[0], RATES[-1])]
    lines = [
        "# Muon beside AdamW on the quickstart",
        "",
        f"Validation loss (nats a token) of the quickstart's model after {tokens} tokens.",
        "`python benchmarks/muon_on_quickstart.py` prints this page and says how runs are chosen.",
        "",
        f"{verdict(adamw, muon)} {edge_note(edges)}".rstrip(),
        "",
        "| optimizer | learning rate | validation loss, 95 % interval |",
        "|---|---|---|",
        *rows,
        "",
        "One run at each rate, with the recipe's seed:",
        "",
        "| learning rate | " + " | ".join(swept) + " |",
        "|---|" + "---|" * len(swept),
        *sweep_rows,
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "One thread a run.",
    ]
    return "\n".join(lines) + "\n"


def verdict(adamw: Sequence[float], muon: Sequence[float]) -> str:
    """Say in a sentence or two which optimizer reached the lower loss, if either did."""
    differences = [ours - theirs for ours, theirs in zip(muon, adamw, strict=True)]
    mean, half = math.fsum(differences) / len(differences), half_width(differences)
    if half is None or not math.isfinite(half):
        return "No interval: one pair of runs only, or a run that diverged."
    figure = f"Muon's loss minus AdamW's is {mean:+.4f} +- {half:.4f} over {len(muon)} seeds."
    if abs(mean) <= half:
        return f"{figure} The two are not told apart."
    return f"{figure} {'Muon' if mean < 0 else 'AdamW'} is better here, at equal tokens."


def edge_note(edges: Sequence[str]) -> str:
    """Warn where the best rate is the lowest or highest of the grid."""
    if not edges:
        return ""
    return (
        f"The best rate of {' and '.join(edges)} lies at the grid's edge, so that a rate beyond "
        "might serve better."
    )


if __name__ == "__main__":
    main()
