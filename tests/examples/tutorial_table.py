"""What makes each tutorial short enough for a test, and text that is made instead of fetched."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


def nothing() -> None:
    """Prepare nothing: the page brings all that it needs."""


@dataclass(frozen=True)
class Page:
    """Changes to the commands of a page; its words stay as they are."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    """Parts of commands and files, and what stands for them."""
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words that are added to a command of feldspar, by its beginning."""
    prepare: Callable[[], None] = nothing
    """Writes what commands that are left out would have fetched."""
    fixtures: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    """Files that are there at the end."""

    def shorter(self, command: str) -> str:
        """Return the command that is run; empty for one that is left out."""
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        for beginning, words in self.added.items():
            if command.startswith(f"feldspar {beginning}"):
                command = re.sub(r"\s+#\s.*", "", command)
                return f"{command} {shlex.join(words)}"
        return command


PAGES: Mapping[str, Page] = {
    "teach-a-language": Page(
        added={
            "train": (
                "phases.0.length=1 steps",
                "phases.1.length=1 steps",
                "evaluation.validation_sequences=1",
            ),
            "evaluate": ("--limit", "256"),
            "reproduce": ("--dry-run",),
        },
        fixtures=("smollm2_wheel",),
        made=("adapted/new_rows.jsonl", "ukrainian/tokenizer.json", "ukrainian.gguf"),
    ),
}
"""By the name of the page."""
