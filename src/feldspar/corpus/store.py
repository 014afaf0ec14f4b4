"""The folder of finished documents: identify it, finish it, and read it again."""

import json
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from feldspar.core.artifact import (
    Wanted,
    find_artifact,
    finish_artifact,
    open_artifact,
    require_replaceable,
)
from feldspar.core.errors import UserError, nearest
from feldspar.core.files import digest_of
from feldspar.core.json_files import write_json
from feldspar.core.progress import say
from feldspar.corpus.columns import read_documents
from feldspar.corpus.document import Document
from feldspar.corpus.report import Report, report_from_json
from feldspar.corpus.split import SPLITS
from feldspar.recipe.base import Settings
from feldspar.recipe.sections.corpus import CorpusSettings

KIND = "documents"
REPORT_NAME = "report.json"
_FOLDERS = frozenset({"path", "ontology"})
"""Keys that say where folders lie, not what the documents are."""
_ADDED: dict[str, Any] = {
    "decontaminate": None,
    "only": {},
    "verify": None,
    "cluster": "components",
    "decontamination": "near",
    "transliterate": None,
    "filters": [],
}
"""Keys that were added after the first folders, and the values that change nothing."""
_WITHOUT_EFFECT = {"memory"}
"""Keys that never change the result."""


def wanted_documents(settings: CorpusSettings, key: str = "") -> Wanted:
    """Return the folder of documents that settings ask for: all of them but the places of folders.

    ``key`` is the recipe's key that names the folder.
    """
    digest = settings_digest(settings, _FOLDERS)
    values = settings.model_dump(mode="json", by_alias=True, exclude=set(_FOLDERS))
    return Wanted(KIND, digest, values, key=key)


def settings_digest(settings: Settings, exclude: Set[str] = frozenset()) -> str:
    """Hash all keys but ``exclude`` and those that were added later and are not in use."""
    value = _in_use(settings.model_dump(mode="json", exclude=set(exclude)))
    return digest_of(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _in_use(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _in_use(item)
            for key, item in value.items()
            if key not in _WITHOUT_EFFECT and (key not in _ADDED or item != _ADDED[key])
        }
    return [_in_use(item) for item in value] if isinstance(value, list) else value


def check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raise UserError where output and an input are one folder, or one lies in the other.

    Otherwise the input would be replaced, or the output be read the next time.
    """
    target = out.resolve()
    for given in inputs:
        source = given.expanduser().resolve()
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise UserError(
                f"the output {out} and the input {given} overlap",
                do="choose an output folder beside the inputs",
            )


def finished_report(out: Path, wanted: Wanted, overwrite: bool) -> Report | None:
    """Return the report of the finished folder ``out``; None when ``out`` is to be made.

    With ``overwrite`` the folder is always made again. Raises UserError when ``out`` holds
    something else, or may not be replaced; RunError that names a damaged file.
    """
    if overwrite:
        require_replaceable(out, wanted.kind)
        return None
    finished = find_artifact(out, wanted)
    if finished is None:
        return None
    finished.verify()
    say(f"{out} is finished already with these settings: nothing to do")
    return report_from_json(finished.file(REPORT_NAME).read_text(encoding="utf-8"))


def finish_folder(folder: Path, wanted: Wanted, command: str, report: Report) -> None:
    """Write the report and the manifest, which names every file."""
    write_json(folder / REPORT_NAME, report.to_json())
    counts = {
        name: {
            "documents": counts.kept.documents,
            "bytes": counts.kept.bytes,
            "licences": counts.licences,
            "removed": {reason: vars(amount) for reason, amount in counts.removed.items()},
            "noted": counts.noted,
            "splits": {split: vars(amount) for split, amount in counts.splits.items()},
            "replaced_characters": counts.replaced_characters,
        }
        for name, counts in report.sources.items()
    }
    total = {
        "documents": sum(each["documents"] for each in counts.values()),
        "bytes": sum(each["bytes"] for each in counts.values()),
        "sources": list(counts),
        "by_source": counts,
        "bad_records": report.bad_records,
    }
    if report.decontamination is not None:
        total["decontamination"] = report.decontamination
    finish_artifact(folder, wanted, command=command, counts=total, warnings=report.warnings)


def split_folder(folder: Path, split: str, source: str) -> Path:
    """Return the folder of one split's documents of one source."""
    return folder / split / source


def sources(folder: Path) -> list[str]:
    """List the sources of a finished folder of documents, in the recipe's order."""
    return list(open_artifact(folder, KIND).manifest.counts["sources"])


def documents(folder: Path, split: str, source: str) -> Iterator[Document]:
    """Yield the kept documents of one split and source, in order; few in memory at a time.

    Licences are counted in the report, not repeated here. Raises UserError for an unknown split or
    source, and when ``folder`` is not a finished folder of documents or holds more than its
    manifest lists; RunError that names a damaged file.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}", allowed=SPLITS)
    opened = open_artifact(folder, KIND)
    names = list(opened.manifest.counts["sources"])
    if source not in names:
        hint = nearest(source, names)
        raise UserError(
            f"{folder} holds no source {source!r}" + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=names,
        )
    for name in opened.names(f"{split}/{source}", ".parquet"):
        yield from read_documents(opened.file(name))
