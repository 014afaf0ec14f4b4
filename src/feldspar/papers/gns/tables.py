"""Tables and figures of the noise scale's experiment."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from feldspar.papers.gns.claims import LOOP, RAMP, listed, overheads, time_savings, token_savings
from feldspar.papers.gns.equal_loss import BatchRuns, StepTime
from feldspar.papers.gns.norm_against_total import BLOCKS, FINE_BLOCKS
from feldspar.papers.kit.gain import relative_spread
from feldspar.papers.kit.paper import Figures
from feldspar.recipe.sections.noise_scale import PAPER_FACTOR
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Section, Table

Losses = Mapping[str, Sequence[Mapping[str, Any]]]
"""Every rate and its final losses by seed, of every batch."""


def relation_section(figures: Figures, batches: Mapping[str, BatchRuns]) -> Section:
    """Return the section on norm layers and total, and on the batches steered by them."""
    words = (
        "Averages after a warm-up of a tenth of the tokens; the total is measured in all layers of "
        f"the same steps. Beyond the trend: r of the logarithms' changes over {FINE_BLOCKS} "
        "blocks, once a parabola in the logarithm of tokens is taken out of each."
    )
    tables = [relation_table(figures), factor_table(figures)]
    known = {name: own for name, own in batches.items() if own.curves[0].batches}
    return Section("Norm layers and total", [words], tables, [batch_figure(known)] if known else [])


def worth_section(
    batches: Mapping[str, BatchRuns],
    losses: Losses,
    baseline: str,
    time: StepTime,
    figure: Figure,
) -> Section:
    """Return the section on loss, tokens and time of each batch."""
    words = (
        "Each batch at the learning rate of its lowest held-out loss. Savings are shares of the "
        f"tokens or time of {baseline} on the way to its final loss, by seed; negative where the "
        "run ends above it. Time is modelled from the steps of all runs: "
        f"{1000 * time.fixed_seconds:.2f} ms a step and {1e6 * time.seconds_per_token:.2f} us a "
        "token. At equal time a run of more steps is read before its schedule has ended."
    )
    tables = [batch_table(batches, baseline, time)]
    if losses:
        tables.append(rate_table(losses))
    figures = [figure]
    if all(runs.has_steps for runs in batches.values()):
        figures.append(curve_figure(batches, time))
    return Section("Batches at equal tokens", [words], tables, figures)


def relation_table(figures: Figures) -> Table:
    """Return a table of slope and correlation by half-life and seed."""
    rows = [
        [f"half-life {length} steps", listed(own["slope"]), listed(own["correlation"])]
        for length, own in figures["relation"].items()
    ]
    rows.append(["beyond the trend", "", listed(figures["beyond_trend"])])
    return Table(["total on norm layers", "slope by seed", "r by seed"], rows)


def factor_table(figures: Figures) -> Table:
    """Return a table of the exact, the calibrated and the paper's factor by tenth of the tokens."""
    exact = np.mean(figures["factors"], axis=0)
    scales = figures["block_scales"]
    norm, total = (np.mean(scales[group], axis=0) for group in ("norm", "total"))
    logged = figures.get("calibrated", ())  # which older records lack
    online = np.mean(logged, axis=0) if logged else np.full(BLOCKS, np.nan)
    rows = [
        [
            f"tenth {block + 1}",
            f"{norm[block]:.1f}",
            f"{total[block]:.1f}",
            f"{exact[block]:.2f}",
            f"{online[block]:.2f}" if math.isfinite(online[block]) else "-",
            f"{PAPER_FACTOR}",
        ]
        for block in range(BLOCKS)
    ]
    header = ["tokens", "norm layers", "total", "factor", "calibrated in the run", "paper"]
    return Table(header, rows)


def batch_table(batches: Mapping[str, BatchRuns], baseline: str, time: StepTime) -> Table:
    """Return a table with a row for each batch: rate, steps, loss and savings."""
    reference = batches[baseline]
    rows = []
    for name, runs in batches.items():
        spread = relative_spread(runs.final_losses)
        is_base = name == baseline
        modelled = time_savings(runs, reference, time) if runs.has_steps else "-"
        rows.append(
            [
                name,
                rate_name(runs.rate),
                f"{fmean([curve.n_steps for curve in runs.curves]):,.0f}",
                f"{fmean(runs.final_losses):.4f}",
                "-" if spread is None else f"{spread:.2%}",
                "" if is_base else str(token_savings(runs, reference)),
                "" if is_base else str(modelled),
            ]
        )
    header = ["batch", "rate", "steps", "held-out loss", "spread"]
    return Table([*header, "tokens saved", "time saved, modelled"], rows)


def rate_table(losses: Losses) -> Table:
    """Return a table of the mean final loss of every batch at every rate."""
    rates = list(dict.fromkeys(one["rate"] for own in losses.values() for one in own))
    rows = []
    for name, own in losses.items():
        known = {one["rate"]: f"{fmean(one['losses']):.4f}" for one in own}
        rows.append([name, *(known.get(rate, "-") for rate in rates)])
    return Table(["held-out loss at base rate", *map(rate_name, rates)], rows)


def rate_name(rate: float | None) -> str:
    """Return a rate as a cell of a table."""
    return "the recipe's" if rate is None else f"{rate:.4g}"


def overhead_tables(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Table]:
    """Return a table for each width: the median time of a step by the kind of measurement."""
    tables = []
    for width, own in seconds.items():
        more = overheads(own)
        rows = [
            [name, f"{1000 * float(np.median(times)):.1f}", f"{more.get(name, 0.0):+.1%}"]
            for name, times in own.items()
        ]
        header = [f"measured, width {width}", "ms a step, median", "against none, median of turns"]
        tables.append(Table(header, rows))
    return tables


def curve_figure(batches: Mapping[str, BatchRuns], time: StepTime | None) -> Figure:
    """Draw the held-out loss of the first seed over tokens, or over modelled time."""
    lines = []
    for name, runs in batches.items():
        curve = runs.curves[0]
        places = curve.tokens if time is None else time.of(curve)
        late = [
            place for place in range(len(places)) if curve.tokens[place] >= 0.2 * curve.tokens[-1]
        ]
        x, losses = [places[i] for i in late], [curve.losses[i] for i in late]
        lines.append(
            Series(label_of(name), x, losses, "points", is_reference=name not in (RAMP, LOOP))
        )
    ends = {name: fmean(own.final_losses) for name, own in batches.items()}
    best = min(ends, key=lambda name: ends[name])
    told = [f"{label_of(best)} ends lowest at {ends[best]:.3f}"]
    others = [name for name in (RAMP, LOOP) if name in ends and name != best]
    told += [f"{label_of(name)} at {ends[name]:.3f}" for name in others]
    over = "tokens" if time is None else "modelled time"
    title = f"Held-out loss over {over}, means over seeds: {', '.join(told)}"
    x_label = "tokens" if time is None else "seconds"
    return line_figure(title, lines, x_label, "nats per byte, first seed")


def batch_figure(batches: Mapping[str, BatchRuns]) -> Figure:
    """Draw the batch of every schedule over tokens, first seed."""
    lines = [
        Series(label_of(name), own.curves[0].tokens, own.curves[0].batches, "points")
        for name, own in batches.items()
    ]
    return line_figure("Batch over tokens, first seed", lines, "tokens", "sequences", log_y=True)


def label_of(batch: str) -> str:
    """Return the name of a batch schedule for readers."""
    kind, _, sequences = batch.partition("-")
    if kind == "constant" and sequences:
        return f"{sequences} sequences"
    return {RAMP: "ramp set by hand", LOOP: "by the noise scale"}.get(batch, batch)
