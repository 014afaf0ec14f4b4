"""Held-out documents that several corpora of the same sources have in common.

A corpus of several releases holds versions of a document that are no near copies of each other:
what one of them holds out is a fair measure only where no corpus trains on any version of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.corpus.document import Document
from feldspar.corpus.store import documents, sources
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.train.load import load_run
from feldspar.train.text_model import text_model_of

SPLIT = "test"
"""Training measures itself on validation, never on this."""


def common_held_out(reference: Path, others: Sequence[Path]) -> list[Document]:
    """One document of each group of ``reference``'s test split that no corpus has in train.

    Groups are compared by name across sources. That no near copy under another name is in train is
    what ``split.decontamination: near`` sees to when the corpora are built. Raises UserError where
    nothing is left.
    """
    trained = {
        document.group
        for folder in (reference, *others)
        for source in sources(folder)
        for document in documents(folder, "train", source)
    }
    held_out: dict[str, Document] = {}
    for source in sources(reference):
        for document in documents(reference, SPLIT, source):
            if document.group not in trained:
                held_out.setdefault(document.group, document)
    if not held_out:
        raise UserError(f"every document that {reference} holds out has a version in train")
    return list(held_out.values())


def bits_per_byte(
    runs: Iterable[Path], held_out: Mapping[str, Sequence[str]]
) -> list[dict[str, float]]:
    """Bits per byte of each run on each of the named texts."""
    found = []
    todo = list(runs)
    with progress("held-out documents", len(todo), "models") as advance:
        for folder in todo:
            model = text_model_of(load_run(folder))
            found.append(
                {
                    name: total_loss(text_losses(model, texts)).bits_per_byte
                    for name, texts in held_out.items()
                }
            )
            advance(1)
    return found
