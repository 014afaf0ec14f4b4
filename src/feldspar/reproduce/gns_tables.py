"""Tables and figures of the noise scale's experiment."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from feldspar.noise_scale.settings import PAPER_FACTOR
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.noise_scale_figures import noise_scale_figures
from feldspar.report.page import Section, Table
from feldspar.reproduce.equal_loss import BatchRuns, StepTime, loss_at
from feldspar.reproduce.gns_claims import (
    BLOCKS,
    FINE_BLOCKS,
    HALF_LIVES,
    WARMUP,
    listed,
    time_savings,
    token_savings,
)
from feldspar.reproduce.ladder import relative_spread
from feldspar.reproduce.norm_against_total import StepNoise, correlation_beyond_trend, relation
from feldspar.runtime.run_folder import RunFolder, read_records

Losses = Mapping[str, Mapping[float | None, Sequence[float]]]
"""Final losses by seed, of every batch at every rate."""


def relation_section(
    noises: Sequence[StepNoise],
    logged: Sequence[Sequence[float]],
    steered: Path,
    batches: Mapping[str, BatchRuns],
) -> Section:
    """Norm layers beside the total, and what the ``steered`` run made of them."""
    words = (
        "Averages after a warm-up of a tenth of the tokens; the total is measured in all layers of "
        f"the same steps. Beyond the trend: r of the logarithms' changes over {FINE_BLOCKS} "
        "blocks, once a parabola in the logarithm of tokens is taken out of each."
    )
    rows = list(read_records(RunFolder(steered).metrics))
    return Section(
        "Norm layers and total",
        [words],
        [relation_table(noises), factor_table(noises, logged)],
        [noise_scale_figures(rows)[0], batch_figure(batches)],
    )


def worth_section(
    batches: Mapping[str, BatchRuns],
    losses: Losses,
    baseline: str,
    time: StepTime,
    figure: Figure,
) -> Section:
    """What each batch came to at equal tokens and in how much time."""
    words = (
        "Each batch at the learning rate of its lowest held-out loss. Savings are shares of the "
        f"tokens or time of {baseline} on the way to its final loss, by seed; negative where the "
        "run ends above it. Time is modelled from the steps of all runs: "
        f"{1000 * time.fixed_seconds:.2f} ms a step and {1e6 * time.seconds_per_token:.2f} us a "
        "token. At equal time a run of more steps is read before its schedule has ended."
    )
    return Section(
        "Batches at equal tokens",
        [words],
        [batch_table(batches, baseline, time), rate_table(losses)],
        [figure, curve_figure("Held-out loss over modelled time", batches, time)],
    )


def relation_table(noises: Sequence[StepNoise]) -> Table:
    """Slope and correlation by half-life and seed."""
    rows = []
    for length in HALF_LIVES:
        if length < len(noises[0].tokens):
            own = [relation(noise, length, WARMUP) for noise in noises]
            rows.append(
                [
                    f"half-life {length} steps",
                    listed([one.slope for one in own]),
                    listed([one.correlation for one in own]),
                ]
            )
    changes = [correlation_beyond_trend(noise, FINE_BLOCKS, WARMUP) for noise in noises]
    rows.append(["beyond the trend", "", listed(changes)])
    return Table(["total on norm layers", "slope by seed", "r by seed"], rows)


def factor_table(noises: Sequence[StepNoise], logged: Sequence[Sequence[float]]) -> Table:
    """The exact factor by tenth of the tokens beside the calibrated one and the paper's."""
    exact = np.stack([noise.factors(BLOCKS) for noise in noises]).mean(axis=0)
    norm, total = (
        np.stack([noise.block_scales(group, BLOCKS) for noise in noises]).mean(axis=0)
        for group in ("norm", "total")
    )
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
    """A row a batch: what it took, and what it came to."""
    reference = batches[baseline]
    end = min(fmean([time.of(curve)[-1] for curve in runs.curves]) for runs in batches.values())
    rows = []
    for name, runs in batches.items():
        spread = relative_spread(runs.final_losses)
        at_end = fmean([loss_at(time.of(curve), curve.losses, end) for curve in runs.curves])
        is_base = name == baseline
        rows.append(
            [
                name,
                rate_name(runs.rate),
                f"{fmean([curve.steps[-1] for curve in runs.curves]):,.0f}",
                f"{fmean([curve.seconds[-1] for curve in runs.curves]):.1f}",
                f"{fmean([time.of(curve)[-1] for curve in runs.curves]):.1f}",
                f"{fmean(runs.final_losses):.4f}",
                "-" if spread is None else f"{spread:.2%}",
                "" if is_base else str(token_savings(runs, reference)),
                "" if is_base else str(time_savings(runs, reference, time)),
                f"{at_end:.4f}",
            ]
        )
    header = ["batch", "rate", "steps", "seconds measured", "modelled", "held-out loss", "spread"]
    return Table([*header, "tokens saved", "time saved", f"loss at {end:.1f} s"], rows)


def rate_table(losses: Losses) -> Table:
    """Mean final loss of every batch at every rate."""
    rates = list(next(iter(losses.values())))
    rows = [
        [name, *(f"{fmean(own[rate]):.4f}" if rate in own else "-" for rate in rates)]
        for name, own in losses.items()
    ]
    return Table(["held-out loss at base rate", *map(rate_name, rates)], rows)


def rate_name(rate: float | None) -> str:
    """A rate in a table."""
    return "the recipe's" if rate is None else f"{rate:.4g}"


def overhead_table(seconds: Mapping[str, Sequence[float]]) -> Table:
    """The median step by what is measured."""
    medians = {name: float(np.median(own)) for name, own in seconds.items()}
    rows = [
        [name, f"{1000 * value:.1f}", f"{value / medians['none'] - 1:+.1%}"]
        for name, value in medians.items()
    ]
    return Table(["measured", "ms a step, median", "against none"], rows)


def curve_figure(title: str, batches: Mapping[str, BatchRuns], time: StepTime | None) -> Figure:
    """Held-out loss of the first seed over tokens, or over modelled time."""
    lines = []
    for name, runs in batches.items():
        curve = runs.curves[0]
        places = curve.tokens if time is None else time.of(curve)
        late = [
            place for place in range(len(places)) if curve.tokens[place] >= 0.2 * curve.tokens[-1]
        ]
        lines.append(
            Series(name, [places[i] for i in late], [curve.losses[i] for i in late], "points")
        )
    return line_figure(title, lines, "tokens" if time is None else "seconds", "nats per byte")


def batch_figure(batches: Mapping[str, BatchRuns]) -> Figure:
    """The batch of every schedule over tokens, first seed."""
    lines = [
        Series(name, own.curves[0].tokens, own.curves[0].batches, "points")
        for name, own in batches.items()
    ]
    return line_figure("Batch over tokens", lines, "tokens", "sequences", log_y=True)
