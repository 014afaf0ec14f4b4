"""Pages of the command line: every command with its arguments, options and examples.

They say what ``--help`` says, because both ask the same application.
"""

import re
from collections.abc import Iterator
from typing import Any

import typer

from feldspar.cli.main import application

HUB = "reference/commands"
NAME = "feldspar"
EXAMPLE = re.compile(r"Example: ")


def command_pages() -> dict[str, str]:
    """Return a page of all commands, and one for each command with those below it."""
    root: Any = typer.main.get_command(application())
    lines = ["# Commands", "", "The same is said by `feldspar COMMAND --help`.", ""]
    pages = {}
    for title, names in root.sections():
        lines += [f"## {title}", ""]
        for name in names:
            command = root.commands[name]
            pages[f"{HUB}/{name}.md"] = "\n".join(command_lines(command, f"{NAME} {name}", 1))
            (first, *_), _ = help_parts(command)
            lines.append(f"* [`{NAME} {name}`](commands/{name}.md): {as_markdown(first)}")
        lines.append("")
    lines += ["## Options before the command", "", *parameter_lines(root)]
    return {f"{HUB}.md": "\n".join([*lines, ""]), **pages}


def command_lines(command: Any, path: str, level: int) -> Iterator[str]:
    """Yield the lines of a command, with those of the commands below it."""
    yield from (f"{'#' * level} {path}", "")
    text, examples = help_parts(command)
    for paragraph in text:
        yield from (as_markdown(paragraph), "")
    inner = getattr(command, "commands", {})
    if not inner:
        context = typer.Context(command, info_name=path)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        yield from ("```text", usage, "```", "")
    if examples:
        yield from ("```", *examples, "```", "")
    if not inner:
        yield from parameter_lines(command)
    for name, below in inner.items():
        yield from command_lines(below, f"{path} {name}", level + 1)


def help_parts(command: Any) -> tuple[list[str], list[str]]:
    """Return the paragraphs of a command's help without its examples, and the examples."""
    texts = [text for text in (command.help, command.epilog) if text]
    paragraphs, examples = [], []
    for paragraph in "\n\n".join(texts).split("\n\n"):
        words, *found = EXAMPLE.split(paragraph)
        if words.strip():
            paragraphs.append(" ".join(words.split()))
        examples += [" ".join(example.split()) for example in found]
    return paragraphs, examples


def parameter_lines(command: Any) -> Iterator[str]:
    """Yield the arguments and options of a command as a list of definitions."""
    context = typer.Context(command)
    for parameter in command.params:
        record = None if getattr(parameter, "hidden", False) else parameter.get_help_record(context)
        if record is not None:
            names, text = record
            yield from (f"`{names}`", f": {as_markdown(text) or '-'}", "")


def as_markdown(text: str) -> str:
    """Return plain text with the characters escaped that mean something in Markdown."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_<>\[\]{}$|~])", r"\\\1", part)
        for part in parts
    )
