"""Remove short documents (SlimPajama, arXiv 2309.10818: fewer than 200 cleaned characters)."""

from feldspar.corpus.filtering import Candidate
from feldspar.recipe.sections.corpus import ShortFilter

REASONS = {"short": "have too few cleaned characters"}


def find_reason(document: Candidate, settings: ShortFilter) -> str | None:
    """Return "short" for a document of fewer than ``characters`` cleaned code points."""
    return "short" if document.cleaned_characters < settings.characters else None
