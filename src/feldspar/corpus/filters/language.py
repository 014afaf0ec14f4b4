"""Remove documents in other languages, as py3langid identifies them.

py3langid (a fork of langid.py, Lui and Baldwin, ACL 2012) holds its model of about 100 languages in
the package: nothing is downloaded, and the same text always gives the same answer.
"""

from functools import lru_cache
from typing import Any

from feldspar.core.errors import UserError, missing_extra, nearest
from feldspar.corpus.filtering import Candidate
from feldspar.recipe.sections.corpus import LanguageFilter, names_in

REASONS = {"language": "are in another language"}
READ_CHARACTERS = 4000
"""Characters of a document that are looked at, in its middle: headers and menus are often English.
"""


def find_reason(document: Candidate, settings: LanguageFilter) -> str | None:
    """Return "language" where the languages to keep are together less probable than asked for.

    Raises SetupError without py3langid, and UserError for a language that it does not know.
    """
    if settings.sources is not None and document.source not in names_in(settings.sources):
        return None
    text = document.text
    begin = max(0, len(text) - READ_CHARACTERS) // 2
    ranked = dict(_identifier(names_in(settings.language)).rank(text[begin:][:READ_CHARACTERS]))
    found = sum(ranked[language] for language in names_in(settings.language))
    return "language" if found < settings.probability else None


@lru_cache(maxsize=8)
def _identifier(languages: tuple[str, ...]) -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise missing_extra("py3langid", "lang") from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    for language in languages:
        if language not in identifier.labels:
            hint = nearest(language, identifier.labels)
            raise UserError(
                f"filters: the language {language!r} is unknown"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=", ".join(sorted(identifier.labels)),
            )
    return identifier
