"""Tables and figures of a family of sizes: its losses, its law and its sweeps of learning rate."""

import math
from collections.abc import Sequence

from feldspar.core.errors import UserError
from feldspar.papers.cerebras_gpt.family import NAMES, Member, law_of, noise_of, of, swept
from feldspar.papers.kit.rate_sweep import RateSweep, percent
from feldspar.plan.laws.law import PowerLaw
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Table


def law_words(family: Sequence[Member]) -> list[str]:
    """The law of each family, and the noise of a run."""
    words = [
        (
            "Loss of held-out text, nats per byte, mean over sources; FLOPs by the convention "
            "'detailed'; all parameters counted, of which the embeddings are a large part."
        )
    ]
    for name, label in NAMES.items():
        try:
            fit = law_of(of(family, name))
        except UserError as error:
            words.append(f"{label}: {error.what}.")
            continue
        curve: PowerLaw = fit.final.curve
        words.append(
            f"{label}: L(f) = (f / {curve.scale_flops:.3g})^-{curve.exponent:.4f} + "
            f"{curve.constant:.3f}, residuals {fit.final.residual_std:.2%}. "
            + " ".join(f"{warning[0].upper()}{warning[1:]}." for warning in fit.warnings)
        )
    noise = noise_of(family)
    words.append(
        "One seed a size: the noise of a run was not measured."
        if noise is None
        else f"Run-to-run standard deviation over seeds: {noise:.2%} (paper: about 0.35 %)."
    )
    return words


def family_tables(family: Sequence[Member], sweep: RateSweep | None) -> list[Table]:
    """The members side by side, and the sweeps of learning rate."""
    header = [
        "size",
        "parameters",
        "FLOPs",
        "SP rate",
        "SP loss",
        "muP rate",
        "muP loss",
        "muP over SP",
    ]
    rows = []
    mup = {member.size: member for member in of(family, "mup")}
    for own in of(family, "sp"):
        other = mup.get(own.size)
        beside = (
            ["", "", ""]
            if other is None
            else [f"{other.rate:g}", f"{other.loss:.4f}", percent(other.loss / own.loss)]
        )
        cells = [own.size, f"{own.parameters:,}", f"{own.flops:.3g}", f"{own.rate:g}"]
        rows.append([*cells, f"{own.loss:.4f}", *beside])
    tables = [Table(header, rows)]
    if sweep is not None:
        tables += [rate_table(sweep, name) for name in NAMES]
    return tables


def rate_table(sweep: RateSweep, name: str) -> Table:
    """Loss by rate at each size that was swept; the best is marked *."""
    own = swept(sweep, name)
    rates = [f"{cell.rate:g}" for cell in sweep.row(name, own[0])]
    rows = []
    for variant in own:
        best = sweep.best(name, variant)
        cells = (
            (f"{cell.loss:.4f}" if math.isfinite(cell.loss) else "-")
            + ("*" if cell is best else "")
            for cell in sweep.row(name, variant)
        )
        rows.append([f"{NAMES[name]}, {variant:,} parameters", *cells])
    return Table(["base learning rate", *rates], rows)


def family_figure(family: Sequence[Member]) -> Figure:
    """Loss over FLOPs of both families, with the law of SP's smaller sizes."""
    lines = []
    for name, label in NAMES.items():
        own = [member for member in of(family, name) if math.isfinite(member.loss)]
        rate = "rate tuned at every size" if name == "sp" else "rate of the smallest"
        flops, losses = [member.flops for member in own], [member.loss for member in own]
        lines.append(Series(f"{label}, {rate}", flops, losses, "markers"))
    sp = of(family, "sp")
    try:
        fit = law_of(sp)
    except UserError:
        pass
    else:
        steps = [sp[0].flops * (sp[-1].flops / sp[0].flops) ** (index / 40) for index in range(41)]
        losses = [fit.judged[fit.form].predict(flops) for flops in steps]
        lines.append(Series("law of SP without its largest size", steps, losses))
    return line_figure(
        "Held-out loss over training FLOPs", lines, "training FLOPs", "nats per byte",
        log_x=True, log_y=True,
    )  # fmt: skip
