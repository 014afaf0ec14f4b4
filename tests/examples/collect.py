"""Every command that help, docs and messages name, as the arguments that a shell would pass."""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from feldspar.cli.main import application

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "feldspar"
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "tutorials"),
    *sorted((PACKAGE / "papers").rglob("*.md")),
)
"""Where commands stand that need no other before them; tutorials are run as a whole."""
COMMAND_LINE: Any = typer.main.get_command(application())
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
IN_BLOCK = re.compile(r"(?:^|[ =])(feldspar (?:'[^']*'|\\\n|[^'\n])*)", re.MULTILINE)
"""A command up to the end of its line, which a backslash or an open quote puts off."""
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(feldspar [^`]+)`")
NAMED = re.compile(rf"feldspar (?=(?:{'|'.join(COMMAND_LINE.commands)})\b)")
"""The beginning of a command in a message; "feldspar failed" is none."""

PLACES = {
    "RECIPE": "alibi-interpolation/small",
    "ITS-RECIPE": "quickstart",
    "PAPER": "btlm",
    "RUN": "runs/quickstart",
    "MODEL": "runs/quickstart",
    "HF_FOLDER": "exported",
    "SHARDS": "data/quickstart/shards",
    "FOLDER": "folder",
    "DIR": "folder",
    "PATH": "release",
    "FILE": "notes.txt",
    "INPUT": "docs.jsonl",
    "KEY=VALUE": "seed=1",
    "KEY": "model.positions",
    "FLOPS": "1e19",
    "N": "2",
}
"""Placeholders for something of the reader's, each with something that fits there."""
VALUES = {
    "loaded.arguments": "quickstart seed=1",
    "start.recipe or 'ITS-RECIPE'": "ITS-RECIPE",
    "paper.name": "PAPER",
    "recipe": "RECIPE",
    "base": "smollm2-135m",
    "paper": "PAPER",
    "record['paper']": "PAPER",
    "options[scale]": "--quick",
    "wanted": "ddp",
    "ontology": "go.obo --root GO:0008150",
    "path": "FOLDER",
    "folder": "RUN",
    "run": "RUN",
    "images_run": "runs/revbifpn-small",
    "imported": "imported",
    "exported": "exported",
    "released": "PATH",
    "quoted(folder)": "PATH",
    "documents": "data/quickstart/documents",
    "tokenizer": "data/quickstart/shards/tokenizer",
    "recipe_file": "my-recipe.yaml",
    "best": "folder/best.yaml",
    "key": "optimizer",
    "reference": "RECIPE",
    "law": "runs/family",
    "arguments": "quickstart seed=1",
    "vision_arguments": "revbifpn/small seed=1",
}
"""Values that a message puts in at run time, by their expressions."""


@dataclass(frozen=True)
class Example:
    """A command and where it stands."""

    place: str
    text: str
    prose: bool = False
    """True between words, where a command may be named without its arguments."""

    @property
    def arguments(self) -> list[str]:
        """Return what follows ``feldspar``, with something in each of the reader's places."""
        words = shlex.split(filled(self.text), comments=True)
        stops = [words.index(stop) for stop in (">", "&&", "|") if stop in words]
        return words[1 : min(stops, default=len(words))]


def filled(text: str) -> str:
    """The command of a synopsis or an example: no brackets, no dots, every place filled."""
    if "[--" in text or "[KEY" in text:
        text = text.replace("[", "").replace("]", "")
    text = text.replace("...", "")
    for place, value in PLACES.items():
        text = re.sub(rf"(?<![\w=.-]){re.escape(place)}(?![\w=-])", value, text)
    return text


def help_examples(command: Any = COMMAND_LINE, path: str = "feldspar") -> Iterator[Example]:
    """The examples of each command's help."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from help_examples(inner, f"{path} {name}")
    for text in (command.help, command.epilog):
        for found in re.findall(r"Example: (feldspar .*?)(?:\n\n|\Z)", text or "", re.DOTALL):
            yield Example(f"{path} --help", " ".join(found.split()))


def page_examples() -> Iterator[Example]:
    """The commands in code of README, docs and the recipes' pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        place = str(page.relative_to(ROOT))
        for block in FENCED.findall(text):
            for found in IN_BLOCK.finditer(re.sub(r"\s#\s.*", "", block)):
                yield Example(place, found[1].replace("\\\n", " "))
        for code in INLINE.findall(FENCED.sub("", text)):
            yield Example(place, code, prose=True)


def python_programs() -> Iterator[Example]:
    """Return the Python of each page that has any: its blocks one after the other."""
    for page in PAGES:
        blocks = PYTHON.findall(page.read_text(encoding="utf-8"))
        if blocks:
            yield Example(str(page.relative_to(ROOT)), "\n".join(blocks))


def message_examples() -> Iterator[Example]:
    """The commands in strings of the source that are no docstrings."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        passed = {id(node) for holder in ast.walk(tree) for node in skipped_in(holder)}
        for node in ast.walk(tree):
            text = None if id(node) in passed else text_of(node, source)
            if text and not text.startswith("Example: "):
                starts = [found.start() for found in NAMED.finditer(text)]
                for start, end in itertools.pairwise([*starts, len(text)]):
                    place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                    yield Example(place, text[start:end].partition("`")[0])


def skipped_in(holder: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, and the parts of strings that are read as a whole."""
    if isinstance(holder, ast.Module | ast.ClassDef | ast.FunctionDef):
        yield from (node.value for node in holder.body if isinstance(node, ast.Expr))
    if isinstance(holder, ast.JoinedStr):
        yield from (node for node in ast.walk(holder) if node is not holder)


def text_of(node: ast.AST, source: str) -> str | None:
    """A string of the source, with something in place of what is put in at run time."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            expression = ast.get_source_segment(source, part.value) or ""
            parts.append(VALUES.get(expression, f"<{expression}>"))
        else:
            parts.append(text_of(part, source) or "")
    return "".join(parts)


def parsed(example: Example) -> tuple[tuple[str, ...], dict[str, Any] | None]:
    """The path of the command and its parameters; None where it is only named or asked for help.

    Usage errors are raised.
    """
    command, path, rest = COMMAND_LINE, [], list(example.arguments)
    while hasattr(command, "commands"):
        if not rest or rest[0] in ("--help", "--version", "--install-completion"):
            assert rest or example.prose, "a group of commands does nothing by itself"
            return tuple(path), None
        name = rest.pop(0)
        if name not in ("--quiet", "--json"):
            assert name in command.commands, f"there is no command {' '.join([*path, name])}"
            command = command.commands[name]
            path.append(name)
    takes = any(parameter.param_type_name == "argument" for parameter in command.params)
    if rest == ["--help"] or (example.prose and takes and not rest):
        return tuple(path), None
    return tuple(path), command.make_context(path[-1], rest).params
