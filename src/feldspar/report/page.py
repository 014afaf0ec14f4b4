"""Render one self-contained HTML page of sections; all text is escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from feldspar.core.errors import missing_extra
from feldspar.report.figures import Figure

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A run of text; ``differs`` is True if the other text has something else there."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Comparison:
    """Two texts as pieces."""

    title: str
    left: Sequence[Piece]
    right: Sequence[Piece]


def compare(title: str, left: str, right: str) -> Comparison:
    """Return the two texts as pieces, with different words, spaces and signs marked.

    Takes time quadratic in the number of words, so use it for excerpts.
    """
    first, second = _WORD.findall(left), _WORD.findall(right)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words in zip(pieces, (first[a:b], second[c:d]), strict=True):
            if words:
                side.append(Piece("".join(words), kind != "equal"))
    return Comparison(title, *pieces)


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2430; background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem;
  border-bottom: 1px solid #d9dee6; padding-bottom: .2rem; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #edf0f4;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; font-size: .82rem;
  white-space: pre-wrap; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; max-width: 30rem; }
figure svg { width: 100%; height: auto; } figcaption { font-size: .85rem; color: #4a5568; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
.pair pre { margin: 0; max-height: 22rem; overflow: auto; overflow-wrap: anywhere; }
mark { background: #ffe08a; }
</style></head><body>
<h1>{{ title }}</h1><p>{{ subtitle }}</p>
{% for section in sections %}<h2>{{ section.title }}</h2>
{% for paragraph in section.paragraphs %}<p>{{ paragraph }}</p>{% endfor %}
{% for table in section.tables %}<table><tr>{% for cell in table.header %}<th
{% if not loop.first %} class="number"{% endif %}>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td
{% if not loop.first %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table>{% endfor %}
{% for figure in section.figures %}<figure>{{ figure.svg | safe }}<figcaption>{{ figure.title }}
</figcaption></figure>{% endfor %}
{% for text in section.texts %}<pre>{{ text }}</pre>{% endfor %}
{% for pair in section.comparisons %}<p>{{ pair.title }}</p><div class="pair">
{% for side in (pair.left, pair.right) %}<pre>{% for piece in side %}{% if piece.differs
%}<mark>{{ piece.text }}</mark>{% else %}{{ piece.text }}{% endif %}{% endfor %}</pre>{% endfor %}
</div>{% endfor %}
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Table:
    """A table; all cells of a row but the first are aligned as numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables, figures, preformatted texts and comparisons, in this
    order."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default=(), repr=False)
    texts: Sequence[str] = field(default=(), repr=False)
    comparisons: Sequence[Comparison] = field(default=(), repr=False)


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML without external resources.

    Raises SetupError if jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise missing_extra("jinja2", "report") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE)
    return template.render(title=title, subtitle=subtitle, sections=sections)
