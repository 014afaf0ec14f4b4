"""The gallery of results: a card for each experiment, from what ``feldspar reproduce`` wrote."""

from collections import Counter
from pathlib import Path

from feldspar.papers.catalogue import PAPERS
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale
from feldspar.papers.results_page import Recorded, read_records
from feldspar_site.commands import as_markdown

INTRO = """# Results
`feldspar reproduce PAPER` measured these figures. Each card names the first claim of a paper, and \
counts the verdicts on all of its claims.

* [**Every claim**](results/README.md)

  All claims of all papers on one page, and what each verdict means.
"""
RECORD = """* [**Quickstart: a record**](results/quickstart-record.md)

  What was tried to lower the bits per byte of the quickstart in equal time.
"""
TEN = 10
"""Papers; the experiments after them in the catalogue combine several."""


def gallery_page(folder: Path) -> str:
    """Return the gallery of the records in a folder."""
    records = read_records(folder)
    ten = list(PAPERS)[:TEN]
    papers = [own for own in records if own.paper in ten and own.scale is Scale.SMALL]
    others = [own for own in records if own not in papers]
    parts = [INTRO, "## Ten papers", "", *map(card, papers), "## More experiments", ""]
    return "\n".join([*parts, *map(card, others), RECORD])


def card(own: Recorded) -> str:
    """Return the card of an experiment: picture, title, first claim, and counts of verdicts."""
    name = own.path.stem
    first = own.claims[0]
    found = Counter(claim.verdict for claim in own.claims)
    verdicts = " ".join(
        f"[{found[verdict]} {verdict}]{{.verdict .{verdict.replace(' ', '-')}}}"
        for verdict in Verdict
        if found[verdict]
    )
    lines = [
        f"* [**{as_markdown(own.name)}**](results/{name}.md)",
        f"![Figure of {own.paper}](results/{name}.svg)",
        as_markdown(first.statement),
        verdicts,
    ]
    return "\n\n  ".join(lines) + "\n"
