"""Say in a card, and in one sentence, what a run is and what it reached."""

import math
from typing import Literal

from feldspar.core.readable import amount, counted, duration, precise
from feldspar.report.figures import number_of
from feldspar.report.page import Card, Fact
from feldspar.report.run_facts import RunFacts, State

TONES: dict[State, Literal["good", "warning", "bad", "neutral"]] = {
    State.FINISHED: "good",
    State.TRAINING: "neutral",
    State.UNFINISHED: "warning",
    State.DIVERGED: "bad",
    State.UNKNOWN: "neutral",
}


def run_card(run: RunFacts) -> Card:
    """Return the card of a run."""
    facts = [
        Fact("Parameters", "not recorded" if run.parameters is None else amount(run.parameters)),
        Fact(run.unit.capitalize(), amount(run.position), _progress(run)),
        Fact("Training time", duration(run.seconds[-1]), f"{run.rows[-1]['step']:,} steps"),
    ]
    if run.date:
        facts.append(Fact("Date", run.date))
    if run.products is not None:
        facts.append(products(*run.products))
    facts += results(run)
    return Card(run.state.value, TONES[run.state], finding(run), [*facts, guards(run)])


def finding(run: RunFacts) -> str:
    """Say in a sentence what the run reached."""
    after = f"after {amount(run.position)} {run.unit}"
    found = run.validation()
    if found is None:
        losses = [row["train/loss"] for row in run.rows]
        return f"Training loss {_loss(losses[0])} at the start, {_loss(losses[-1])} {after}"
    first = next(row["validation/loss"] for row in run.rows if "validation/loss" in row)
    last = precise(found.last)
    if found.lowest < found.last - 5e-4:
        place = amount(found.lowest_at)
        return (
            f"Validation loss was lowest, {precise(found.lowest)}, at {place} {run.unit}, "
            f"and ended at {last}"
        )
    return f"Validation loss {'is' if _loss(first) == last else 'fell to'} {last} {after}"


def results(run: RunFacts) -> list[Fact]:
    """Return the figures on held-out data, as far as they were measured."""
    facts = []
    if run.held_out is not None:
        facts.append(Fact("Held-out bits per byte", f"{run.held_out:.3f}", "of test documents"))
    elif (bits := run.validation("bits_per_byte")) is not None:
        facts.append(Fact("Validation bits per byte", f"{bits.last:.3f}"))
    if (loss := run.validation()) is not None:
        facts.append(Fact("Validation loss", f"{loss.last:.3f}", loss.unit))
    for measure, name in (("top1", "First class right"), ("box_AP", "Average precision")):
        if (value := run.validation(measure)) is not None:
            shown = f"{value.last:.1%}" if measure == "top1" else f"{value.last:.3f}"
            facts.append(Fact(name, shown, "validation"))
    return facts


def products(sparse: int, masked: int) -> Fact:
    """Return how many masked matrices are multiplied without their zeros, on this machine."""
    if not sparse:
        return Fact("Masked matrices", "multiplied dense", "FLOPs not realised")
    return Fact("Masked matrices", f"{sparse} of {masked}", "multiplied without their zeros")


def guards(run: RunFacts) -> Fact:
    """Return what the guards saw: spikes of the loss, and steps that were not finite."""
    if not run.spikes and not run.skipped:
        return Fact("Guards", "nothing seen", "no spike, no bad step")
    spikes = counted(run.spikes, "loss spike")
    bad = f"{counted(run.skipped, 'step')} not finite"
    return Fact("Guards", " and ".join([spikes] * bool(run.spikes) + [bad] * bool(run.skipped)))


def _progress(run: RunFacts) -> str:
    if run.length is None:
        return ""
    if run.position >= run.length:
        return "the whole length"
    return f"{100 * run.position / run.length:.0f} % of {amount(run.length)}"


def _loss(value: object) -> str:
    found = number_of(value)
    return precise(found) if math.isfinite(found) else "not finite"
