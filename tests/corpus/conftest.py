"""Small corpora on disk."""

import hashlib
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from feldspar.corpus.parts import PartFiles, part_folder, write_index
from feldspar.corpus.stages import unit_folder
from feldspar.recipe.sections.corpus import CorpusSettings
from tests.made_text import documents, edited


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
def long_texts() -> list[str]:
    """A few hundred texts of a language, edited, cut and shouted copies among them."""
    texts = documents(230, 450, longest=4000)
    generator = random.Random(0)
    changed = [edited(text, generator, 0.02) for text in texts[:60]]
    cut = [text[: len(text) * 9 // 10] for text in texts[:60]]
    shouted = [text.upper() for text in texts[:20]]
    return texts + changed + cut + shouted


def empty_parts(folder: Path, documents: list[int]) -> PartFiles:
    """Folders of parts of that many documents each, in one unit, without their files."""
    for number in range(len(documents)):
        part_folder(unit_folder(folder, 0), number).mkdir(parents=True)
    write_index(folder / "index.npy", [documents])
    return PartFiles(folder, folder / "index.npy")
