"""Find out which files below a path feldspar reads, and in which format."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from feldspar.core.errors import UserError
from feldspar.corpus.readers.huggingface import is_saved, saved_files, split_files
from feldspar.corpus.readers.jsonl import JSONL_SUFFIXES
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES
from feldspar.corpus.readers.warc import WARC_SUFFIXES

Format = Literal["text", "code", "jsonl", "parquet", "warc", "huggingface"]
TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex")
# fmt: off
CODE_SUFFIXES = (
    ".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h",
    ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".m", ".sh",
    ".sql", ".r", ".R", ".jl", ".lua", ".pl", ".pm", ".hs", ".ml", ".ex", ".exs", ".erl", ".clj",
    ".dart", ".f90", ".css",
)
# fmt: on
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "text": TEXT_SUFFIXES,
    "code": CODE_SUFFIXES,
    "jsonl": JSONL_SUFFIXES,
    "parquet": PARQUET_SUFFIXES,
    "warc": WARC_SUFFIXES,
}
LEFT_OUT = ("__pycache__", "node_modules", "site-packages", "dist-packages")
"""Folders of other people's code; folders whose name begins with a dot are left out too."""
NOT_READ = {
    ".csv": "turn it into Parquet: pyarrow.parquet.write_table(pyarrow.csv.read_csv(FILE), NEW)",
    ".tsv": "turn it into Parquet by pyarrow.csv, as a CSV file",
    ".json": "write one record on each line, and call the file .jsonl",
    ".pdf": "take the text out of it first, for example by pdftotext",
    ".docx": "save it as text first",
    ".epub": "take the text out of it first",
    ".html": "take the text out of it first; web archives (.warc) are read as they are",
    ".zip": "unpack it first",
    ".gz": "unpack it first; only .jsonl.gz and .warc.gz are read as they are",
}
"""Advice for files that hold text in a form that no reader takes."""
_SNIFFED_BYTES = 1 << 16


@dataclass(frozen=True)
class Finding:
    """Files of one format at one of the given paths: one source of the recipe."""

    path: Path
    """The path as it was given."""
    format: Format
    files: list[tuple[str, Path]]
    """Name below the path, and place, of each file."""
    suffixes: tuple[str, ...] = ()
    """Endings of text and code that were found."""
    exclude: tuple[str, ...] = ()
    """Globs of files that are left out."""
    bad: tuple[str, ...] = ()
    """Why some of them are left out: they are no text."""


@dataclass
class Search:
    """The findings at all given paths, and what was passed over."""

    findings: list[Finding] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files that no reader takes, by their ending."""


def search(paths: Iterable[Path]) -> Search:
    """Find the files at ``paths`` that a reader takes.

    Raises UserError for a path that does not exist, a file that no reader takes, and where there is
    nothing to read at all.
    """
    found = Search()
    given = list({path.expanduser().resolve(): path for path in paths}.values())
    _require_apart(given)
    for path in given:
        if path.expanduser().is_file():
            found.findings.append(_file(path))
        else:
            _search_folder(path, found)
    if not found.findings:
        raise _nothing(given, found.passed_over)
    return found


def _require_apart(paths: list[Path]) -> None:
    """Raise UserError where one path lies in another: its text would be read twice."""
    for inner in paths:
        for outer in paths:
            place = inner.expanduser().resolve()
            if inner != outer and place.is_relative_to(outer.expanduser().resolve()):
                raise UserError(f"{inner} lies in {outer}, so it is read twice", do="give one")


def advice(ending: str) -> str:
    """Say what to do with files of an ending that no reader takes; empty where nothing is known."""
    return NOT_READ.get(ending, "")


def _file(path: Path) -> Finding:
    """Return the finding of one file. Raises UserError for one that no reader takes."""
    place = path.expanduser().absolute()
    files = [(path.name, place)]
    for kind, suffixes in SUFFIXES.items():
        if path.name.endswith(suffixes):
            return Finding(path, kind, files, (_ending(path.name),))
    head = _head(place)
    if b"\0" in head:
        raise _not_read(path, "is no text: it holds bytes that are zero")
    if _holds_records(head):
        return Finding(path, "jsonl", files)
    if _ending(path.name) in NOT_READ:
        raise _not_read(path, "is in a format that feldspar does not read")
    return Finding(path, "text", files, (_ending(path.name),))


def _search_folder(path: Path, found: Search) -> None:
    """Add the findings of a folder, one for each format that it holds."""
    place = path.expanduser()
    if is_saved(path):
        saved = [(file.name, file) for file in saved_files(path)]
        found.findings.append(Finding(path, "huggingface", saved))
        return
    try:
        files = files_below(path, ("",))
    except UserError:
        if not place.exists():
            raise UserError(f"{path} does not exist", do="check the path") from None
        return  # an empty folder
    for kind, suffixes in SUFFIXES.items():
        own = [(name, file) for name, file in files if name.endswith(suffixes)]
        if kind in ("text", "code"):
            kept = [(name, file) for name, file in own if not _left_out(name)]
            exclude = tuple(sorted({_left_out(name) for name, _ in own} - {""}))
        else:
            kept, exclude = own, ()
        if kept:
            endings = tuple(sorted({_ending(name) for name, _ in kept}))
            found.findings.append(_with_splits(Finding(path, kind, kept, endings, exclude)))
    known = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    for name, _ in files:
        if not name.endswith(known) and not _left_out(name):
            found.passed_over[_ending(name)] += 1


def _with_splits(finding: Finding) -> Finding:
    """Return a finding that leaves test files out, where names of files say what they are for."""
    if finding.format not in ("jsonl", "parquet"):
        return finding
    try:
        train = split_files(finding.path, "train")
    except UserError:
        return finding
    own = [pair for pair in finding.files if pair in train]
    if len(own) == len(finding.files) or not own:
        return finding
    return Finding(finding.path, "huggingface", own)


def _left_out(name: str) -> str:
    """Return the glob of the folder for whose sake a file is left out; empty for others."""
    for part in PurePosixPath(name).parts[:-1]:
        if part in LEFT_OUT or part.startswith("."):
            return f"**/{part}/**"
    return ""


def _ending(name: str) -> str:
    """Return the ending of a file's name, with the dot; the whole name where there is none."""
    last = name.rsplit("/", 1)[-1]
    found = re.search(r"(?<=.)\.[^.]+$", last)
    return found[0] if found else last


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path} is empty")
    return head


def _holds_records(head: bytes) -> bool:
    """Tell whether a file begins with a JSON object on its first line."""
    try:
        return isinstance(json.loads(head.split(b"\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return False


def _not_read(path: Path, why: str) -> UserError:
    hint = advice(_ending(path.name))
    return UserError(f"{path} {why}", allowed=_allowed(), do=hint or "give it as plain text")


def _nothing(paths: list[Path], passed_over: Counter[str]) -> UserError:
    told = ", ".join(f"{count} {ending}" for ending, count in passed_over.most_common(5))
    hints = [hint for ending, _ in passed_over.most_common() if (hint := advice(ending))]
    return UserError(
        f"there is no text to read in {', '.join(map(str, paths))}",
        found=told or "no file",
        allowed=_allowed(),
        do=hints[0] if hints else "point to files or folders that hold text",
    )


def _allowed() -> str:
    return (
        "text (.txt, .md, .rst, ...), source code, .jsonl (also .gz, .zst), .parquet, .warc, .wet "
        "(also .gz, .zst), folders of Hugging Face datasets"
    )
