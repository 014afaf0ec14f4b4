"""The groups of the command line: commands in sections, ``--quiet`` and ``--json`` anywhere.

Every command takes ``--quiet``. Both options may also stand before the command's name, where the
groups take them and hand them on.
"""

from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from feldspar.core.progress import SilentListener, listening

SECTIONS = {
    "Begin": ("quickstart", "new", "doctor"),
    "Data": ("corpus", "tokenizer", "tokens"),
    "Plan and tune": ("plan", "coordinate-check", "transfer", "scaling", "noise-scale"),
    "Train": ("train", "import", "adapt", "extend-context", "vision"),
    "Use and measure": ("evaluate", "generate", "chat", "report"),
    "Release": ("export", "release"),
    "Reference": ("recipe", "config", "reproduce", "results", "trace"),
}
"""Commands by what they are for, in the order of the help."""
QUIET_HELP = "Show no progress and no next steps."
JSON_HELP = "Print results as JSON, for machines."
FORMER_NAME = "--to"
"""An earlier name of ``--out``, which the commands that had it still take. No help shows it."""
_HANDED_ON = "feldspar.handed_on"
"""Key of the context's ``meta``: the options that stood before the name of the command."""
_WHOLE_SENTENCE = 1000
"""More characters than any first sentence has, so that none is cut off."""


class CommandGroup(TyperGroup):
    """A group whose options ``--quiet`` and ``--json`` hold for the command that is named."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params += [_handed_on("quiet"), _handed_on("json")]
        for command in self.commands.values():
            if not isinstance(command, TyperGroup):
                _complete(command)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and give it the options that stood before its name."""
        name, command, rest = super().resolve_command(ctx, args)
        if not isinstance(command, TyperGroup):
            rest = [*ctx.meta.get(_HANDED_ON, ()), *rest]
        return name, command, rest

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the titles of the help's sections with the names of their commands."""
        yield "Commands", list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with its first sentence, uncut, below its section's title."""
        width = max(map(len, self.commands), default=0)
        for title, names in self.sections():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (
                            name.ljust(width),
                            self.commands[name].get_short_help_str(_WHOLE_SENTENCE),
                        )
                        for name in names
                    ]
                )


class MainGroup(CommandGroup):
    """The whole command line, in sections."""

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the sections that hold a command; a command of no section comes last."""
        placed: set[str] = set()
        for title, names in SECTIONS.items():
            found = [name for name in names if name in self.commands]
            placed.update(found)
            if found:
                yield title, found
        if rest := [name for name in self.commands if name not in placed]:
            yield "More", rest


@cache
def _flags() -> dict[str, Any]:
    """Return the options ``--quiet`` and ``--json`` as typer makes them, whatever its version."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def command(
        quiet: Annotated[bool, typer.Option("--quiet", help=QUIET_HELP)] = False,
        json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    ) -> None:
        pass

    return {option.name: option for option in get_command(app).params}


def _flag(name: str, callback: Callable[[Any], None]) -> Any:
    """Return a flag that calls ``callback`` with the context where it is given."""

    def call(context: Any, _: Any, given: bool) -> None:
        if given:
            callback(context)

    flag = copy(_flags()[name])
    flag.expose_value, flag.callback = False, call
    return flag


def _handed_on(name: str) -> Any:
    """Return an option of a group that its commands receive."""
    return _flag(name, lambda context: context.meta.setdefault(_HANDED_ON, []).append(f"--{name}"))


def _complete(command: Any) -> None:
    """Add the options that every command has: ``--quiet``, and the former name of ``--out``."""
    for option in [one for one in command.params if FORMER_NAME in one.opts]:
        former = copy(option)
        option.opts = [name for name in option.opts if name != FORMER_NAME]
        # Both have the same name inside, and so fill in the same value.
        former.opts, former.hidden = [FORMER_NAME], True
        former.required, former.expose_value = False, False
        command.params.append(former)
    command.params.append(
        _flag("quiet", lambda context: context.with_resource(listening(SilentListener())))
    )
