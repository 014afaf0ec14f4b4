"""What an extended tokenizer is to its base, and its new tokens in terms of the base's.

A tokenizer that was extended (``feldspar.tokens.extend``) keeps ids 0 to V0 - 1 of its base; its
folder holds ``extension.json`` beside ``tokenizer.json``.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from feldspar.tokens.tokenizer import TextTokenizer

EXTENSION_FILE = "extension.json"


@dataclass(frozen=True)
class Extension:
    """How a tokenizer was extended."""

    base_digest: str
    """``TextTokenizer.digest`` of the base."""
    base_vocab_size: int
    """V0: the first new id."""
    new_tokens: int
    """Ids V0 to V0 + new_tokens - 1 are new pieces."""
    method: str
    """``continued`` or ``append``."""
    characters: str
    """The target characters: names of scripts, or the characters themselves."""
    report: dict[str, Any] = field(default_factory=dict)
    """What ``feldspar.tokens.extension_report`` found on held-out text of each source."""

    def save(self, folder: Path) -> None:
        """Write ``extension.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        (folder / EXTENSION_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Extension | None":
        """What ``folder`` tells; None without the file. Raises UserError when it is damaged."""
        path = folder / EXTENSION_FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is no record of an extension: {error}") from error


def decompositions(base: "TextTokenizer", extended: "TextTokenizer") -> list[list[int]]:
    """For each new id in order, the ids of ``base`` that its piece was made of before.

    By the base's merges alone: encoding the piece as a text would put a space before it. The
    decompositions of a text's new ids, one after the other, are the text's ids by ``base``. Control
    tokens that were added beside the pieces count as text. Raises UserError when ``extended`` does
    not keep every id of ``base``.
    """
    for identifier in range(base.vocab_size):
        old, new = base.piece(identifier), extended.piece(identifier)
        if old != new:
            raise UserError(
                f"the tokenizer does not extend the base: id {identifier} was {old!a} and is "
                f"{new!a}",
                do="give the tokenizer that was extended as base",
            )
    found = []
    for identifier in range(base.vocab_size, extended.vocab_size):
        piece = extended.piece(identifier) or ""
        added = extended.is_added(identifier)
        found.append(base.encode_documents([piece])[0].tolist() if added else base.merged(piece))
    return found
