"""Remove documents of long lines, which are often minified or generated code, or data.

The rule comes from Codex (arXiv 2107.03374, section 3.1: an average line length above 100); The
Stack's preprocessing, CodeParrot and SantaCoder (arXiv 2301.03988) keep it with the same limit.
"""

from feldspar.corpus.filtering import Candidate
from feldspar.recipe.sections.corpus import MaxMeanLineLength

REASONS = {"max_mean_line_length": "have long lines on average"}


def find_reason(document: Candidate, settings: MaxMeanLineLength) -> str | None:
    """Return "max_mean_line_length" where lines have more than ``characters`` on average.

    Characters are code points without the ends of lines; empty lines count as lines.
    """
    lines = document.text.splitlines()
    characters = sum(map(len, lines))
    return "max_mean_line_length" if characters > settings.characters * len(lines) else None
