"""Globs of relative paths: ``**`` crosses folders; one without a slash is a bare file name."""

import re
from collections.abc import Sequence
from functools import lru_cache

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = (_MEANING.get(token, re.escape(token)) for token in _TOKEN.findall(glob))
    return re.compile("".join(parts), re.DOTALL)


def matches(path: str, globs: Sequence[str]) -> bool:
    """Whether a relative path with forward slashes fits one of ``globs``."""
    name = path.rsplit("/", 1)[-1]
    return any(_pattern(glob).fullmatch(path if "/" in glob else name) for glob in globs)
