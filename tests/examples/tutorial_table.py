"""What makes each tutorial short enough for a test, and text that is made instead of fetched."""

import json
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feldspar.recipe.load import load_recipe
from tests.examples.shorten import write_texts
from tests.made_text import documents

LEFT_OUT = "true"
"""The command of the shell that stands for one that is left out."""


def nothing() -> None:
    """Prepare nothing: the page brings all that it needs."""


def write_code(folder: str, texts: list[str]) -> None:
    """Write texts as files of Python, one in a folder of its own."""
    for number, text in enumerate(texts):
        path = Path(folder) / f"part{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(textwrap.wrap(text, 80)) + "\n")


def write_packages() -> None:
    """Write packages that share files, as releases and copied libraries do."""
    shared, old, other = (documents(12, 900, 1500, seed) for seed in range(3))
    passage = "Parse a given requirement string into its parts, such as name, specifier, URL, and "
    shared[0] += passage + "extras. Raises InvalidRequirement on a badly-formed requirement string."
    write_code("raw/pip-25.0", shared)
    write_code("raw/pip-24.0", [*shared[:6], *(text + " more" for text in shared[6:]), *old])
    write_code("raw/setuptools-75.8.0", [*shared[:3], *other, "short"])
    Path("raw/setuptools-75.8.0/table.py").write_text("numbers = [" + "1, " * 400 + "]\n")


def write_library() -> None:
    """Write the files that stand for the reader's own."""
    write_code("texts", documents(60, 900, 2500, 5))


def write_sources(*recipes: str) -> Callable[[], None]:
    """Return a function that writes the text of each source of the recipes."""

    def write() -> None:
        Path("texts").mkdir()
        corpora = [load_recipe(recipe).recipe.corpus for recipe in recipes]
        names = {name: None for corpus in corpora if corpus for name in corpus.sources}
        for seed, name in enumerate(names):
            write_texts(Path("texts"), name, seed)

    return write


@dataclass(frozen=True)
class Page:
    """Changes to the commands of a page; its words stay as they are."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    """Parts of commands and files, and what stands for them."""
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words that are added to a command of feldspar, by its beginning."""
    small: tuple[str, ...] = ()
    """Recipes that get the overrides of ``shortened``."""
    prepare: Callable[[], None] = nothing
    """Writes what commands that are left out would have fetched."""
    fixtures: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    """Files that are there at the end."""

    def shorter(self, command: str) -> str:
        """Return the command that is run."""
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        for beginning, words in self.added.items():
            if command.startswith(f"feldspar {beginning}"):
                command = re.sub(r"\s+#\s.*", "", command)
                return f"{command} {shlex.join(words)}"
        return command


def overridden(**values: object) -> tuple[str, ...]:
    """Return words that set values; two underscores stand for a dot."""
    return tuple(f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items())


PAGES: Mapping[str, Page] = {
    "clean-a-corpus": Page(
        replaced={"pip install": LEFT_OUT, "vocab_size: 2048": "vocab_size: 300"},
        prepare=write_packages,
        made=("documents-report.html", "within/report.json", "shards/manifest.json"),
    ),
    "teach-a-language": Page(
        added={
            "train": overridden(
                phases__0__length="1 steps",
                phases__1__length="1 steps",
                evaluation__validation_sequences=1,
            ),
            "evaluate": ("--limit", "256"),
            "reproduce": ("--dry-run",),
        },
        fixtures=("smollm2_wheel",),
        made=("adapted/new_rows.jsonl", "ukrainian/tokenizer.json", "ukrainian.gguf"),
    ),
    "train-on-your-own-text": Page(
        replaced={"python - <<": "cat <<"},
        added={"train": overridden(phases__0__length="2 steps")},
        prepare=write_library,
        made=("runs/mine/report.html", "runs/mine/release/manifest.json"),
    ),
    "vision": Page(
        replaced={"length: 3 epochs": "length: 2 steps"},
        small=("revbifpn/detection",),
        made=("digits.onnx", "found.json"),
    ),
}
"""By the name of the page."""
