"""Apply filters to documents: find for each document the reason to remove it, or none.

A filter is one file in ``corpus/filters``. The file is named as the ``type`` of the filter's
settings and holds two names:

* ``find_reason(document, settings)``: a function from a ``Candidate`` to a reason or None;
* ``REASONS``: each reason that the function returns, with a predicate for messages to people.
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType

import numpy as np

from feldspar.corpus import filters as filters_folder
from feldspar.corpus.packed import PackedTexts
from feldspar.recipe.sections.corpus import Filter


@dataclass(slots=True)
class Candidate:
    """A document that filters look at: text ``index`` of ``texts``, normalised but not cleaned.

    ``cleaned_characters`` counts the code points of the cleaned text.
    """

    texts: PackedTexts
    index: int
    cleaned_characters: int
    source: str
    """Name of its source."""

    @property
    def text(self) -> str:
        """Decode the normalised text, at each call."""
        return self.texts.text(self.index)


def find_reasons(
    texts: PackedTexts,
    cleaned_characters: np.ndarray,
    sources: Sequence[str],
    filters: Sequence[Filter],
) -> np.ndarray:
    """Return for each text the place of its reason in ``reasons_of(filters)``; -1: none (i16).

    ``sources`` holds the name of each text's source. The first filter that gives a reason decides.
    """
    places = {reason: place for place, reason in enumerate(reasons_of(filters))}
    functions = [_function_of(settings) for settings in filters]
    found = np.full(len(texts), -1, np.int16)
    measured = zip(cleaned_characters.tolist(), sources, strict=True)
    for index, (characters, source) in enumerate(measured):
        document = Candidate(texts, index, characters, source)
        for function in functions:
            reason = function(document)
            if reason is not None:
                found[index] = places[reason]
                break
    return found


def reasons_of(filters: Sequence[Filter]) -> list[str]:
    """Return the reasons that ``filters`` may give, in the order of the filters."""
    return list(dict.fromkeys(reason for each in filters for reason in _file_of(each.type).REASONS))


def all_reasons() -> dict[str, str]:
    """Return every reason of every filter, with its predicate for messages to people."""
    names = sorted(module.name for module in pkgutil.iter_modules(filters_folder.__path__))
    return {key: words for name in names for key, words in _file_of(name).REASONS.items()}


def _function_of(settings: Filter) -> Callable[[Candidate], str | None]:
    return partial(_file_of(settings.type).find_reason, settings=settings)


def _file_of(name: str) -> ModuleType:
    return import_module(f"{filters_folder.__name__}.{name}")
