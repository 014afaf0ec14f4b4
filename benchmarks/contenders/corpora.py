"""Real corpora for deduplication, built once from pinned archives of the package index.

``tuning`` is of the kind on which bands, rows and pre-filter were chosen: documentation and code in
several versions, and edited copies. ``fresh`` shares no package with it and has had no say in
anything: message catalogues in many languages, generated clients, code, manuals, books.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feldspar.core.files import digest_of
from feldspar.corpus.clean import cleaned
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.archives import cache_folder
from feldspar.corpus.readers.sources import read_source
from feldspar.recipe.sections.corpus import SourceSettings

LONGEST_CHARACTERS = 14_000
SHORTEST_CLEANED = 200
ROW_GROUP = 1000
CODE, MANUALS, CATALOGUES = ["**/*.py"], ["**/*.rst", "**/*.txt"], ["**/*.po"]
TUNING = {
    "django-docs": ("django", ["docs/**/*.txt"]),
    "django-code": ("django", ["django/**/*.py"]),
    "sympy": ("sympy", CODE),
    "twilio": ("twilio", CODE),
    "sqlalchemy": ("sqlalchemy", CODE + MANUALS),
    "networkx": ("networkx", CODE + MANUALS),
}
FRESH = {
    "django-messages": ("django", CATALOGUES),
    "sphinx-messages": ("sphinx", CATALOGUES),
    "sphinx": ("sphinx", CODE + MANUALS),
    "kubernetes": ("kubernetes", CODE),
    "stripe": ("stripe", CODE),
    "ansible": ("ansible-core", [*CODE, "**/*.yml", "**/*.rst"]),
    "pygments": ("pygments", CODE + MANUALS),
    "nltk": ("nltk", CODE),
    "shakespeare": ("shakespeare", ["shksprdata/texts/*.txt"]),
}
CORPORA: dict[str, tuple[dict[str, Any], float]] = {"tuning": (TUNING, 0.25), "fresh": (FRESH, 0.0)}
"""By name: sources as (package, members), and edited copies per document."""

ARCHIVES: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("archives.json").read_text(encoding="utf-8")
)
"""Package to version to digest."""

Edit = Callable[[str, random.Random], str]


def corpus_file(name: str) -> Path:
    """The Parquet file of a corpus, with columns id (the row), source and text; made when absent.

    Raises SetupError when an archive can be neither found in the cache nor downloaded.
    """
    sources, copies = CORPORA[name]
    code = Path(__file__).read_text(encoding="utf-8")
    digest = digest_of(json.dumps(ARCHIVES), code)[:12]
    path = cache_folder() / "benchmarks" / f"{name}-{digest}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(_documents(sources))
        generator = random.Random(name)
        chosen = generator.sample(rows, int(copies * len(rows)))
        rows += [(source, edited(text, generator)) for source, text in chosen]
        write_documents(path, rows)
    return path


def write_documents(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write (source, text) as a corpus, in small row groups."""
    columns = {
        "id": [f"{number:07d}" for number in range(len(rows))],
        "source": [source for source, _ in rows],
        "text": [text for _, text in rows],
    }
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(pa.table(columns), unfinished, row_group_size=ROW_GROUP)
    unfinished.replace(path)


def texts_of(path: Path) -> list[str]:
    """All texts of a corpus."""
    return pq.read_table(path, columns=["text"]).column("text").to_pylist()


def _documents(sources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, (package, members) in sources.items():
        archives = [
            {"requirement": f"{package}=={version}", "sha256": digest}
            for version, digest in ARCHIVES[package].items()
        ]
        reader = {"type": "package", "archives": archives, "include": members}
        settings = SourceSettings.model_validate_json(json.dumps({"reader": reader}))
        for document in read_source(name, settings, Tolerance(1000)):
            text = document.text[:LONGEST_CHARACTERS]
            if len(cleaned(text)) >= SHORTEST_CLEANED:
                yield name, text


def edited(text: str, generator: random.Random) -> str:
    """The text changed as copies on the web are: in one of the ways of ``EDITS``."""
    return generator.choice(EDITS)(text, generator)


def _case_and_space(text: str, generator: random.Random) -> str:
    return re.sub(r"[ \n]", lambda space: space.group() * generator.randint(1, 2), text.upper())


def _words(text: str, generator: random.Random) -> str:
    share = generator.choice((0.002, 0.005, 0.01, 0.02, 0.05))
    parts = text.split(" ")
    return " ".join("another" if generator.random() < share else part for part in parts)


def _boilerplate(text: str, generator: random.Random) -> str:
    notice = "Copied from the mirror of this page. All rights belong to their owners.\n"
    return notice * generator.randint(1, 4) + text


def _truncated(text: str, generator: random.Random) -> str:
    return text[: int(len(text) * generator.uniform(0.75, 0.99))]


def _repeated(text: str, generator: random.Random) -> str:
    return text + text[: int(len(text) * generator.uniform(0.01, 0.3))][::-1]


EDITS: tuple[Edit, ...] = (_case_and_space, _words, _words, _boilerplate, _truncated, _repeated)


def passages(paths: list[Path], documents: int, characters: int) -> list[tuple[str, str]]:
    """``documents`` short texts: passages of different documents, and one edited copy for every 4.

    Fewer documents are a beginning of more, and their share of copies is the same. Raises
    SystemExit when the corpora hold too little text.
    """
    texts = sorted({text for path in paths for text in texts_of(path)})
    random.Random(0).shuffle(texts)
    generator = random.Random(1)
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    for text in texts:
        for start in range(0, len(text) - characters, characters):
            passage = text[start : start + characters]
            if passage in seen or len(cleaned(passage)) < SHORTEST_CLEANED:
                continue
            seen.add(passage)
            found.append(("passages", passage))
            if len(found) % 5 == 4:
                found.append(("passages", edited(generator.choice(found)[1], generator)))
            if len(found) >= documents:
                return found[:documents]
    raise SystemExit(f"the corpora hold {len(found)} passages, not {documents}")
