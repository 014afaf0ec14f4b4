"""Make a recipe for files of one's own: look, choose, write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.begin.base import choose_for_base
from feldspar.begin.choice import Choice, Chooser
from feldspar.begin.held_out import HeldOut, hold_out
from feldspar.begin.pile import Pile, measure_pile
from feldspar.begin.written import Places, next_commands, recipe_lines
from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.recipe.load import LoadedRecipe, load_recipe

DEFAULT_MINUTES = 5.0
MOST_MINUTES = 60.0 * 24 * 365
WORTH_A_WARNING = 0.05
"""Share of copies in a source that is told."""


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written, and the reasons for what it says."""

    loaded: LoadedRecipe
    places: Places
    pile: Pile
    held_out: HeldOut
    choice: Choice

    def record(self) -> dict[str, Any]:
        """Return what was found and chosen as plain values."""
        choice = self.choice
        return {
            "recipe": str(self.places.recipe),
            "sources": {source.name: source.record() for source in self.pile.sources},
            "not_read": dict(self.pile.search.passed_over),
            "parameters": choice.parameters,
            "vocab_size": choice.vocabulary,
            "tokens": choice.tokens,
            "text_tokens": choice.text_tokens,
            "epochs": choice.epochs,
            "tokens_per_second": choice.pace.undisturbed,
            "minutes": choice.seconds / 60,
            "minutes_now": choice.seconds_now / 60,
            "bound_by": choice.bound_by,
            "warnings": self.warnings(),
            "next": next_commands(self.places),
        }

    def warnings(self) -> list[str]:
        """Return what the user should know about, a line each."""
        found = []
        if self.choice.busy:
            now = self.choice.seconds_now / 60
            found.append(
                f"other programs slow this machine down: beside them, training takes {now:.2g} "
                "minutes"
            )
        if not self.held_out.any:
            found.append(self.held_out.why)
        for source in self.pile.sources:
            if source.copied_share > WORTH_A_WARNING:
                found.append(
                    f"{source.name}: {source.copied_share:.0%} of the text are exact copies, of "
                    "which one is kept"
                )
        return found


def check_request(
    out: Path,
    minutes: float,
    parameters: float | None = None,
    start_from: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Raise UserError for a request that cannot be met, before anything is read."""
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"{out}: the name of a recipe file ends in .yaml", do="set --out NAME.yaml")
    if out.is_dir():
        raise UserError(f"{out} is a folder", do="choose another name for the recipe: --out")
    if out.exists() and not overwrite:
        raise UserError(
            f"{out} exists already", do="choose another file, or pass --overwrite to replace it"
        )
    if not 0 < minutes <= MOST_MINUTES:
        raise UserError("--minutes: must be above 0, and at most a year", found=minutes)
    if parameters is not None and start_from is not None:
        raise UserError("--size and --start-from both set the size", do="leave out one of them")
    if parameters is not None and not 1e3 <= parameters <= 1e12:
        raise UserError("--size: must be a number of parameters", found=parameters, allowed="as 2M")


def write_new_recipe(
    pile: Pile,
    out: Path,
    minutes: float,
    parameters: float | None = None,
    start_from: Path | None = None,
    chooser: Chooser | None = None,
) -> NewRecipe:
    """Choose a model for ``pile`` and ``minutes`` of this machine, and write its recipe to ``out``.

    With ``start_from`` it is the model in that folder. Raises UserError where there is too little
    text, and for a folder without a model.
    """
    held_out = hold_out([source.documents for source in pile.sources])
    if start_from is None:
        choice = (chooser or Chooser(pile, held_out.train_share)).choose(minutes, parameters)
    else:
        choice = choose_for_base(pile, held_out.train_share, start_from, minutes)
    places = places_of(out, [source.finding.path for source in pile.sources])
    lines = recipe_lines(pile, choice, held_out, places, minutes)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, "".join(f"{line}\n" for line in lines))
    return NewRecipe(load_recipe(str(out)), places, pile, held_out, choice)


def make_recipe(
    paths: Sequence[Path],
    out: Path,
    minutes: float = DEFAULT_MINUTES,
    parameters: float | None = None,
    text_field: str | None = None,
    start_from: Path | None = None,
    overwrite: bool = False,
) -> NewRecipe:
    """Look at ``paths`` and write a recipe that trains on their text in about ``minutes``.

    Raises UserError for paths without text, fields that are not clear, and an existing file unless
    ``overwrite``.
    """
    check_request(out, minutes, parameters, start_from, overwrite)
    pile = measure_pile(paths, text_field)
    return write_new_recipe(pile, out, minutes, parameters, start_from)


def places_of(recipe: Path, inputs: Sequence[Path]) -> Places:
    """Return the places of what is built: beside the recipe, but never inside an input."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.stem).strip("._-") or "mine"
    home = recipe.resolve().parent
    given = [path.expanduser().resolve() for path in inputs]
    around = [path for path in given if path.is_dir() and home.is_relative_to(path)]
    data = Path("data") / name
    inside = [path for path in given if path.is_dir() and (home / data).is_relative_to(path)]
    below = [path for path in given if path.is_relative_to(home / data)]
    if not inside and not below:
        return Places(recipe, name, data)
    top = min(around or inside or [home], key=lambda path: len(path.parts))
    beside = top.with_name(f"{top.name}-feldspar")
    return Places(recipe, name, beside / name, beside / "runs" / name)


def parameters_of(text: str) -> float:
    """Return a number of parameters written as 2M, 1.3B or 800000. Raises UserError otherwise."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmb]?)", text.strip().lower())
    if found is None:
        raise UserError("--size: must be a number of parameters", found=text, allowed="as 2M")
    return float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[found[2]]
