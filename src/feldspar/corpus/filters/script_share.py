"""Remove documents with too few letters of a script, such as pages of another language.

Only letters count (str.isalpha): digits, marks, spaces and punctuation belong to no language. A
document without a letter is removed.
"""

import re
from functools import lru_cache

from feldspar.corpus.filtering import Candidate
from feldspar.corpus.scripts import character_ranges, characters_of_scripts
from feldspar.recipe.sections.corpus import ScriptShare, names_in

REASONS = {"script_share": "have too few letters of the script"}


def find_reason(document: Candidate, settings: ScriptShare) -> str | None:
    """Return "script_share" where fewer letters than the share belong to the scripts.

    Raises UserError for an unknown script.
    """
    if settings.sources is not None and document.source not in names_in(settings.sources):
        return None
    text = document.text
    letters = sum(map(str.isalpha, text))
    own = sum(map(len, _letters_of(names_in(settings.script)).findall(text)))
    return "script_share" if not letters or own / letters < settings.share else None


@lru_cache(maxsize=8)
def _letters_of(scripts: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of runs of the letters of ``scripts``."""
    codes = sorted(code for code in characters_of_scripts(scripts) if chr(code).isalpha())
    return re.compile(f"[{character_ranges(codes)}]+")
