"""Put runs side by side: their results, and the keys of their recipes that differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from feldspar.core.differences import SHOWN_CHARACTERS, differences
from feldspar.core.errors import shorten
from feldspar.core.readable import amount, duration
from feldspar.report.page import Card, Fact, Section, Table
from feldspar.report.run_card import guards, results
from feldspar.report.run_facts import RunFacts, State
from feldspar.report.training_figures import compared, end_loss

NAMES_ONLY = ("name", "description", "shards.path", "corpus.path")
"""Keys that change no training."""


def comparison_card(runs: Sequence[RunFacts]) -> Card:
    """Return the card of several runs."""
    finished = sum(run.state is State.FINISHED for run in runs)
    unit = runs[0].unit
    facts = [
        Fact("Runs", str(len(runs)), f"{finished} finished"),
        Fact(f"All {unit}", amount(sum(run.position for run in runs))),
        Fact("All training time", duration(sum(run.seconds[-1] for run in runs))),
    ]
    return Card("", "neutral", compared(runs), facts)


def comparison_section(
    runs: Sequence[RunFacts], recipes: Mapping[str, dict[str, Any] | None]
) -> Section:
    """Return the tables: a column for each run, then what differs in their recipes."""
    rows: dict[str, list[str]] = {
        "state": [run.state.value for run in runs],
        "parameters": [_or_dash(run.parameters) for run in runs],
        runs[0].unit: [amount(run.position) for run in runs],
        "steps": [f"{run.rows[-1]['step']:,}" for run in runs],
        "training FLOPs": [f"{run.flops[-1]:.3g}" if run.flops else "-" for run in runs],
        "training time": [duration(run.seconds[-1]) for run in runs],
        "date": [run.date or "-" for run in runs],
        "training loss at the end": [f"{end_loss(run):.3f}" for run in runs],
    }
    for index, run in enumerate(runs):
        for fact in [*results(run), guards(run)]:
            rows.setdefault(fact.name.lower(), ["-"] * len(runs))[index] = fact.value
    header = ["", *(run.name for run in runs)]
    words = ["Curves of training loss are smoothed by the mean of a centred window."]
    known = {name: recipe for name, recipe in recipes.items() if recipe is not None}
    if len(known) < len(runs):
        lacking = ", ".join(name for name, recipe in recipes.items() if recipe is None)
        words.append(f"These recipes cannot be read, so they are not compared: {lacking}.")
    tables = [Table(header, [[name, *values] for name, values in rows.items()])]
    different = different_keys(list(known.values()))
    if different:
        cells = [
            [key, *(_shown(value_at(recipe, key)) for recipe in known.values())]
            for key in different
        ]
        tables.append(Table(["key of the recipe that differs", *known], cells))
    elif len(known) > 1:
        words.append("The recipes do not differ.")
    return Section("Side by side", words, tables)


def different_keys(recipes: Sequence[dict[str, Any]]) -> list[str]:
    """Return the dotted keys of which some recipes have another value than the first."""
    found: dict[str, None] = {}
    for other in recipes[1:]:
        for key, *_ in differences(recipes[0], other):
            found[key] = None
    return [key for key in found if key not in NAMES_ONLY]


def value_at(recipe: Any, key: str) -> Any:
    """Return the value under a dotted key; None where there is none."""
    for part in key.split("."):
        if isinstance(recipe, dict):
            recipe = recipe.get(part)
        elif isinstance(recipe, list) and part.isdigit() and int(part) < len(recipe):
            recipe = recipe[int(part)]
        else:
            return None
    return recipe


def _shown(value: Any) -> str:
    return "-" if value is None else shorten(str(value), SHOWN_CHARACTERS)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else amount(value)
