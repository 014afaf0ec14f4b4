"""The offline tasks: items that can be answered, the same for the same seed."""

import json
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate.tasks.lm_eval_tasks import cloze_items, write_cloze_task

DOCUMENTS = [
    "\n".join(f"document {name} says line {n} of its own" for n in range(6)) for name in "abcdef"
]


def test_items_hold_the_true_line_and_three_of_others() -> None:
    items = cloze_items(DOCUMENTS, 60, seed=1)
    assert len(items) == 6 and len({item["answer"] for item in items}) > 1
    for document, item in zip(DOCUMENTS, items, strict=True):
        true = item["choices"][item["answer"]]
        assert f"{item['context']}\n{true}" in document and 0 < len(item["context"]) <= 60
        others = [choice for choice in item["choices"] if choice != true]
        assert len(others) == 3 and all(choice not in document for choice in others)
        assert len({choice.split()[1] for choice in item["choices"]}) == 4
    assert items == cloze_items(DOCUMENTS, 60, seed=1) != cloze_items(DOCUMENTS, 60, seed=2)


def test_files(tmp_path: Path) -> None:
    assert write_cloze_task(tmp_path, DOCUMENTS, "mine") == ("mine_cloze", "mine_bits")
    task = json.loads((tmp_path / "mine_bits.yaml").read_text())
    data = Path(task["dataset_kwargs"]["data_files"]["test"])
    assert data.is_absolute()
    assert [json.loads(line)["text"] for line in data.read_text().splitlines()] == DOCUMENTS


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(UserError, match="3 documents have two lines"):
        cloze_items([*DOCUMENTS[:3], "short\nlines"], 60, seed=0)
