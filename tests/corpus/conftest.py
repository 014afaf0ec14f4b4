"""Small corpora on disk."""

import hashlib
import json
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from feldspar.corpus.parts import PartFiles, part_folder, write_index
from feldspar.corpus.settings import CorpusSettings
from feldspar.corpus.unit_files import unit_folder


def prose(seed: int, words: int = 80) -> str:
    """A text of its own for each seed: no two share runs of 13 characters."""
    digests = (hashlib.sha256(f"{seed} {i}".encode()).hexdigest()[:6] for i in range(words))
    return " ".join(digests)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[str, Iterable[dict[str, Any]]], Path]:
    """Writes records into a JSON-lines file below the temporary folder."""

    def write(name: str, records: Iterable[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write


def corpus_settings(path: Path, sources: dict[str, Any], **sections: Any) -> CorpusSettings:
    """The section ``corpus`` as a recipe's loader would check it."""
    value = {"path": str(path), "sources": sources, **sections}
    return CorpusSettings.model_validate_json(json.dumps(value))


@pytest.fixture(scope="session")
def library_texts() -> list[str]:
    """A few hundred real texts: files of the interpreter's standard library, and edited copies."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))[:110] + sorted((folder / "encodings").glob("*.py"))
    texts = [file.read_text(encoding="utf-8")[:4000] for file in files]
    edited = [text.replace("self", "this").replace("return", "give back") for text in texts[:60]]
    cut = [text[: len(text) * 9 // 10] for text in texts[:60]]
    shouted = [text.upper() for text in texts[:20]]
    return [text for text in texts + edited + cut + shouted if len(text) > 400]


def empty_parts(folder: Path, documents: list[int]) -> PartFiles:
    """Folders of parts of that many documents each, in one unit, without their files."""
    for number in range(len(documents)):
        part_folder(unit_folder(folder, 0), number).mkdir(parents=True)
    write_index(folder / "index.npy", [documents])
    return PartFiles(folder, folder / "index.npy")
