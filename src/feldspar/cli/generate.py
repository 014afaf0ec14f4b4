"""``feldspar generate``: continue a text with a run or another model."""

from pathlib import Path
from typing import Annotated

import typer

ModelFolder = Annotated[
    Path, typer.Argument(help="Run folder, release, Hugging Face folder or GGUF file.")
]
NewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=0, help="The most tokens that are written.")
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0.0, help="0 takes the likeliest token; more draws tokens."),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", min=1, help="Draw from this many likeliest tokens.")
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", help="Draw from the fewest tokens that have this probability."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the tokens that are drawn.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:0.")]
CheckpointName = Annotated[
    str, typer.Option("--checkpoint", help="Of a run: last, best, or its number of tokens.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def generate(
        model: ModelFolder,
        prompt: Annotated[str, typer.Option("--prompt", help="Text that is continued.")],
        max_new_tokens: NewTokens = 100,
        temperature: Temperature = 0.0,
        top_k: TopK = None,
        top_p: TopP = None,
        seed: Seed = 0,
        device: Device = None,
        checkpoint: CheckpointName = "last",
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Continue a text with a model.

        The prompt and its continuation are printed as the model makes them. Nothing else stands on
        standard output. An empty prompt begins a new document. The text ends at the model's end of
        document or turn, or after --max-new-tokens.

        Example: feldspar generate runs/quickstart --prompt 'The old house' --max-new-tokens 40
        """
        import feldspar
        from feldspar.cli.console import print_json, write_text

        opened = feldspar.open_model(model, checkpoint=checkpoint, device=device)
        written = opened.stream(
            prompt, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        if json:
            continuation = "".join(written)
            print_json(
                {
                    "prompt": prompt,
                    "text": prompt + continuation,
                    "continuation": continuation,
                    "new_tokens": len(written.new_ids),
                    "ended": written.ended,
                }
            )
            return
        write_text(prompt)
        for piece in written:
            write_text(piece)
        write_text("\n")
