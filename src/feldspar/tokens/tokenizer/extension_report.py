"""Compare the base and the extended tokenizer on the same texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.document_encoding import SourceCounts
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Comparison:
    """Counts of one source's texts, before and after."""

    before: SourceCounts
    after: SourceCounts
    characters: int
    identical_documents: int
    """Number of documents whose ids do not change."""
    target_documents: int
    """Number of documents with a target character; the others are identical."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: tokens per word, bytes and characters per token, before and
        after."""
        found: dict[str, Any] = {
            "documents": self.before.documents,
            "words": self.before.words,
            "identical_documents": self.identical_documents,
            "target_documents": self.target_documents,
            "identity_rate": self.identical_documents / self.before.documents,
        }
        for name, counts in (("before", self.before), ("after", self.after)):
            tokens = counts.tokens - counts.documents
            found[name] = {
                "tokens": tokens,
                "tokens_per_word": counts.tokens_per_word,
                "bytes_per_token": counts.bytes_per_token,
                "characters_per_token": self.characters / tokens if tokens else None,
            }
        return found


def compare_fertility(
    base: TextTokenizer,
    extended: TextTokenizer,
    target: TargetCharacters,
    texts: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Comparison], int]:
    """Return the comparison of each source, and the number of new ids that no text uses.

    Raises UserError for a source without words.
    """
    used = np.zeros(extended.vocab_size, dtype=bool)
    found = {}
    for name, documents in texts.items():
        old, new = base.encode_documents(documents), extended.encode_documents(documents)
        for ids in new:
            used[ids] = True
        words = sum(len(text.split()) for text in documents)
        if not words:
            raise UserError(f"source {name} has no words to measure the tokenizers on")
        size = sum(len(text.encode()) for text in documents)
        before, after = (
            SourceCounts(len(documents), sum(map(len, ids)) + len(documents), size, words)
            for ids in (old, new)
        )
        found[name] = Comparison(
            before,
            after,
            characters=sum(map(len, documents)),
            identical_documents=sum(np.array_equal(a, b) for a, b in zip(old, new, strict=True)),
            target_documents=sum(target.pattern.search(text) is not None for text in documents),
        )
    return found, int(np.count_nonzero(~used[base.vocab_size :]))


def refuse_shared_characters(
    target: TargetCharacters, texts: Mapping[str, Sequence[str]], largest_share: float
) -> None:
    """Raise UserError if the old language of ``texts`` uses the target characters."""
    for name, documents in texts.items():
        words = [word for text in documents for word in text.split()]
        shared = [word for word in words if target.pattern.search(word)]
        if len(shared) > largest_share * len(words):
            raise UserError(
                f"{len(shared) / len(words):.1%} of the words of source {name} contain a "
                "target character, so the old language would be split differently",
                found=f"target characters: {target.description}",
                allowed=f"at most {largest_share:.0%} of the words",
                do="name the sources of the new language with corpus and its script with "
                "script, or accept it with allow_resegmentation: true",
            )
