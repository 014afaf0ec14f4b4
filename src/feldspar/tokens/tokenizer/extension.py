"""The record of an extension: how an extended tokenizer relates to its base.

An extended tokenizer keeps ids 0 to V0 - 1 of its base; its folder holds ``extension.json`` beside
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
    """What ``feldspar.tokens.tokenizer.extension_report`` found on held-out text of each source."""

    def save(self, folder: Path) -> None:
        """Write ``extension.json`` into ``folder``."""
        write_json(folder / EXTENSION_FILE, asdict(self), ascii_only=True)

    @classmethod
    def load(cls, folder: Path) -> "Extension | None":
        """What ``folder`` tells; None without the file. Raises UserError when it is damaged."""
        path = folder / EXTENSION_FILE
        if not path.is_file():
            return None
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise UserError(f"{path} is no record of an extension: {error}") from error
