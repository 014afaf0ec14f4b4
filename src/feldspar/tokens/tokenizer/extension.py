"""Record how an extended tokenizer relates to its base.

An extended tokenizer keeps ids 0 to V0 - 1 of its base. Its folder holds ``extension.json`` beside
``tokenizer.json``.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json, write_json

EXTENSION_FILE = "extension.json"


@dataclass(frozen=True)
class Extension:
    """Record of a tokenizer's extension."""

    base_digest: str
    """``TextTokenizer.digest`` of the base."""
    base_vocab_size: int
    """V0: the first new id."""
    new_tokens: int
    """Ids V0 to V0 + new_tokens - 1 are new tokens."""
    method: str
    """``continued`` or ``append``."""
    characters: str
    """Target characters: names of scripts, or the characters themselves."""
    report: dict[str, Any] = field(default_factory=dict)
    """Report of ``feldspar.tokens.tokenizer.extension_report`` on held-out text of each source."""

    def save(self, folder: Path) -> None:
        """Write ``extension.json`` into ``folder``."""
        write_json(folder / EXTENSION_FILE, asdict(self), ascii_only=True)

    @classmethod
    def load(cls, folder: Path) -> "Extension | None":
        """Read the record in ``folder``; None without a file. Raises UserError if it is damaged."""
        path = folder / EXTENSION_FILE
        if not path.is_file():
            return None
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise UserError(f"{path} is not the record of an extension: {error}") from error
