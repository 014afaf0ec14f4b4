"""Count the tokens that a tokenizer needs for the words and bytes of each source."""

from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.tokens.tokenizer.encoding import SourceCounts, encode_unit, units_of
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def measure_fertility(
    tokenizer_folder: Path, documents: Path, split: str = "train"
) -> dict[str, SourceCounts]:
    """Encode one split and count, for each source.

    Raises UserError if the split has no documents.
    """
    from feldspar.corpus import store

    digest = TextTokenizer.load(tokenizer_folder).digest
    counted = {}
    with progress("encoding") as advance:
        for name in store.sources(documents):
            if not (documents / split / name).is_dir():
                continue
            texts = (document.text for document in store.documents(documents, split, name))
            found = 0, 0, 0, 0, 0
            for unit in units_of(texts, tokenizer_folder, digest):
                encoded = encode_unit(unit)
                now = (
                    len(encoded.lengths),
                    int(encoded.lengths.sum()),
                    encoded.text_bytes,
                    encoded.words,
                    encoded.empty_documents,
                )
                found = tuple(map(sum, zip(found, now, strict=True)))
                advance(len(encoded.lengths))
            counted[name] = SourceCounts(*found)
    if not counted:
        raise UserError(f"{documents} has no documents in its {split} split")
    return counted
