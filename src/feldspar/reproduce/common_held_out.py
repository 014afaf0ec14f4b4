"""Held-out documents that none of several corpora of the same sources trains on.

Without duplicates removed, a copy of a held-out document can lie in train: where it does, the
document is no measure of the corpora against each other and is left out.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.corpus.columns import arrow
from feldspar.corpus.store import documents, sources
from feldspar.evaluate.documents import text_losses
from feldspar.evaluate.text_loss import total_loss
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.tokenizer import TextTokenizer
from feldspar.train.load import load_run

SPLIT = "validation"
Place = tuple[str, str]
"""The source and origin of a document, which name it in each of the corpora."""


def common_held_out(
    reference: Path, others: Sequence[Path], bytes_per_source: int
) -> dict[str, list[str]]:
    """Texts of each source that ``reference`` holds out and no corpus of ``others`` trains on.

    Neither they nor any document that was dropped as their duplicate is in train there. About
    ``bytes_per_source`` of whole documents, at least one. Raises UserError for a source that has
    none.
    """
    trained = {name for folder in others for name in _trained(folder)}
    copies = _copies(reference)
    held_out: dict[str, list[str]] = {}
    for source in sources(reference):
        texts: list[str] = []
        size = 0
        for document in documents(reference, SPLIT, source):
            place = document.source, document.origin
            if trained.isdisjoint([place, *copies.get(place, ())]):
                texts.append(document.text)
                size += len(document.text.encode("utf-8"))
            if size >= bytes_per_source:
                break
        if not texts:
            raise UserError(f"no held-out document of {source} is free of copies in train")
        held_out[source] = texts
    return held_out


def bits_per_byte(runs: Iterable[Path], held_out: dict[str, list[str]]) -> list[dict[str, float]]:
    """Bits per byte of each run by source."""
    found = []
    todo = list(runs)
    with progress("held-out documents", len(todo), "models") as advance:
        for folder in todo:
            run = load_run(folder)
            tokenizer = TextTokenizer.load(run.tokenizer_folder)
            model = TextModel(run.decoder, tokenizer, tokenizer.vocab_size)
            found.append(
                {
                    source: total_loss(text_losses(model, texts)).bits_per_byte
                    for source, texts in held_out.items()
                }
            )
            advance(1)
    return found


def _trained(folder: Path) -> Iterable[Place]:
    for source in sources(folder):
        for document in documents(folder, "train", source):
            yield document.source, document.origin


def _copies(folder: Path) -> dict[Place, list[Place]]:
    """The documents dropped in favour of each kept one."""
    _, parquet = arrow()
    names = ["source", "origin", "kept_source", "kept_origin"]
    table = parquet.read_table(folder / "duplicates.parquet", columns=names)
    found: dict[Place, list[Place]] = {}
    for source, origin, *kept in zip(
        *(table.column(name).to_pylist() for name in names), strict=True
    ):
        found.setdefault((kept[0], kept[1]), []).append((source, origin))
    return found
