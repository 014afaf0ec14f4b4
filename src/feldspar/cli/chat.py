"""``feldspar chat``: converse with a model, line by line."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from feldspar.cli.generate import (
    CheckpointName,
    Device,
    ModelFolder,
    NewTokens,
    Seed,
    Temperature,
    TopK,
    TopP,
)

LEAVE = "/exit"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def chat(
        model: ModelFolder,
        system: Annotated[
            str | None, typer.Option("--system", help="Message before the first question.")
        ] = None,
        max_new_tokens: NewTokens = 512,
        temperature: Temperature = 0.0,
        top_k: TopK = None,
        top_p: TopP = None,
        seed: Seed = 0,
        device: Device = None,
        checkpoint: CheckpointName = "last",
    ) -> None:
        """Converse with a model, line by line.

        Each line of standard input is a message, which is answered on standard output.
        The model's own chat template forms the conversation. It ends at /exit, at the end of the
        input, or when the model's context is full.

        Example: feldspar chat runs/chat --temperature 0.7 --top-p 0.9
        """
        import feldspar
        from feldspar.cli.console import write_text

        opened = feldspar.open_model(model, checkpoint=checkpoint, device=device)
        conversation = opened.converse(
            system,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        for text in messages():
            begun = False
            try:
                for piece in conversation.ask(text):
                    begun = True
                    write_text(piece)
            finally:
                if begun:
                    write_text("\n")


def messages() -> Iterator[str]:
    """Yield the lines of standard input that are not blank, up to the one that leaves.

    Raises UserError for a line that is not UTF-8.
    """
    from feldspar.core.errors import UserError

    asks = sys.stdin.isatty()
    if asks:
        sys.stderr.write(f"Write a message and press Enter; {LEAVE} leaves.\n")
    while True:
        if asks:
            sys.stderr.write("> ")
            sys.stderr.flush()
        try:
            line = sys.stdin.readline()
            line.encode()
        except UnicodeError:
            raise UserError(
                "standard input: the message is not UTF-8",
                do="set the terminal to UTF-8, or convert the text that is piped in",
            ) from None
        if not line or line.strip() == LEAVE:
            return
        if line.strip():
            yield line.rstrip("\r\n")
