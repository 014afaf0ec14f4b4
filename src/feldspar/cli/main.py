"""The command ``feldspar``: one file a command, heavy libraries imported inside commands only."""

import importlib
import os
import select
import sys
import traceback
from contextlib import ExitStack
from typing import Any

import typer

from feldspar import __version__
from feldspar.cli.command_group import CommandGroup, MainGroup
from feldspar.cli.completion import complete_arguments
from feldspar.cli.console import TerminalListener, escaped_output, print_error
from feldspar.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_READER_GONE,
    FeldsparError,
    InternalError,
    UserError,
)
from feldspar.core.progress import listening
from feldspar.core.system_errors import translated

# typer brings its own copy of click in some versions; either way this is the base of usage errors.
USAGE_ERROR: Any = typer.BadParameter.__mro__[2]

COMMANDS = (
    "quickstart",
    "new",
    "corpus",
    "tokenizer",
    "tokens",
    "plan",
    "coordinate_check",
    "transfer",
    "scaling",
    "noise_scale",
    "reproduce",
    "results",
    "train",
    "evaluate",
    "generate",
    "chat",
    "vision",
    "import_model",
    "adapt",
    "extend_context",
    "export",
    "release",
    "report",
    "recipe",
    "config",
    "trace",
    "doctor",
)
"""Files of this folder; each defines ``register(app)``."""

NAME = "feldspar"
"""Name of the program: in its help, and for the shells that ask it to complete."""
STANDARD_OUTPUT = 1
"""Its file descriptor."""


def application() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name=NAME,
        cls=MainGroup,
        help="From raw text to a released language model at the least compute.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback(invoke_without_command=True)
    def options(
        context: typer.Context,
        version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit
        stack = ExitStack()
        stack.enter_context(listening(TerminalListener()))
        context.call_on_close(stack.close)

    for name in COMMANDS:
        importlib.import_module(f"feldspar.cli.{name}").register(app)
    for group in app.registered_groups:
        group.cls = CommandGroup
    complete_arguments(app)
    return app


def run() -> None:
    """Run the command line; every expected error is a few lines and a documented exit code."""
    sys.exit(run_with(sys.argv[1:]))


@escaped_output()
def run_with(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        result = application()(args=arguments, prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except FeldsparError as error:
        print_error(error)
        if isinstance(error, InternalError):
            traceback.print_exc()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except USAGE_ERROR as error:
        error.show()
        return UserError.exit_code
    except SystemExit as error:
        # The command-line library turns a broken pipe into exit code 1.
        if isinstance(error.__context__, BrokenPipeError):
            return _end_of_pipe(error.__context__)
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError as error:
        return _end_of_pipe(error)
    except Exception as error:
        return _fault(error)


def _end_of_pipe(error: BrokenPipeError) -> int:
    """What reads the output (head, a pager) has seen enough; a pipe to anything else is a fault."""
    poll = select.poll()
    poll.register(STANDARD_OUTPUT, 0)
    if not poll.poll(0):
        return _fault(error)
    _drop_output()
    return EXIT_READER_GONE


def _fault(error: Exception) -> int:
    """Say what the system or a library refused in our own words; the rest is a fault of ours."""
    told = translated(error)
    if told is None:
        traceback.print_exception(error)
        told = InternalError("feldspar failed; please report the lines above")
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()  # else the interpreter would complain of it again when it ends
    print_error(told)
    return told.exit_code


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
