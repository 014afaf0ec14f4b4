"""``feldspar tokenizer``: train one, and report how well it fits each source."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.tokens.settings import BpeFiles, HuggingFaceTokenizer, TrainBpe

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. tokenizer.vocab_size=8192")
]
DocumentsOption = Annotated[
    Path | None, typer.Option("--documents", help="A documents folder, as `corpus build` writes it")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    tokenizer = typer.Typer(help="Train a tokenizer, and report its fertility.")
    app.add_typer(tokenizer, name="tokenizer")
    tokenizer.command()(train)
    tokenizer.command()(report)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe; or give --documents")] = None,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="Folder to write")] = Path("tokenizer"),
    documents: DocumentsOption = None,
    vocab_size: Annotated[int | None, typer.Option(help="Tokens; with --documents")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    json: Json = False,
) -> None:
    """Train a recipe's tokenizer (or read it), and write it as a folder that transformers loads.

    `tokens build` does this by itself; here the tokenizer can be looked at, or shared by recipes.

    Example: feldspar tokenizer train recipe.yaml --output data/tokenizer
    """
    from feldspar import __version__
    from feldspar.core.files import digest_of, new_folder
    from feldspar.core.manifest import Manifest, read_manifest, records_of, write_manifest
    from feldspar.tokens.tokenizer_sources import tokenizer_from_settings

    settings, folder, seed = _asked_for(recipe, overrides or [], documents, vocab_size)
    with new_folder(output, overwrite) as target:
        tokenizer = tokenizer_from_settings(settings, folder, seed)
        tokenizer.save(target)
        manifest = Manifest(
            kind="tokenizer",
            configuration=digest_of(settings.model_dump_json(), str(seed)),
            version=__version__,
            command=" ".join(["feldspar tokenizer train", recipe or "", *(overrides or [])]),
            parents={}
            if settings.type != "train_bpe"
            else {"documents": read_manifest(folder, "documents").digest},
            counts={"vocab_size": tokenizer.vocab_size},
            files=records_of(target),
        )
        write_manifest(target, manifest)
    _print(
        json,
        {
            "path": str(output),
            "vocab_size": tokenizer.vocab_size,
            "end_of_document": tokenizer.end_of_document,
            "end_of_document_id": tokenizer.end_of_document_id,
            "digest": tokenizer.digest,
        },
    )


def report(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer folder")],
    documents: Annotated[Path, typer.Option("--documents", help="A documents folder")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    json: Json = False,
) -> None:
    """Tokens per word and bytes per token of each source.

    Example: feldspar tokenizer report data/shards/tokenizer --documents data/documents
    """
    from feldspar.cli.console import print_json
    from feldspar.tokens.build import counts_with_ratios
    from feldspar.tokens.fertility import measure_fertility

    counted = measure_fertility(tokenizer, documents, split)
    if json:
        print_json({name: counts_with_ratios(counts) for name, counts in counted.items()})
        return
    typer.echo(f"{'source':24}{'tokens/word':>13}{'bytes/token':>13}{'documents':>12}")
    for name, counts in counted.items():
        typer.echo(
            f"{name:24}{counts.tokens_per_word or 0:13.3f}{counts.bytes_per_token or 0:13.3f}"
            f"{counts.documents:12,}"
        )


def _asked_for(
    recipe: str | None, overrides: list[str], documents: Path | None, vocab_size: int | None
) -> "tuple[TrainBpe | HuggingFaceTokenizer | BpeFiles, Path, int]":
    """Settings, documents and seed, from a recipe or from the options."""
    from feldspar.core.errors import UserError
    from feldspar.recipe import load_recipe
    from feldspar.tokens.settings import TrainBpe

    if recipe is None:
        if documents is None or vocab_size is None:
            raise UserError("give a recipe, or both --documents and --vocab-size")
        if vocab_size < 257:
            raise UserError("--vocab-size must be at least 257: the bytes and one special token")
        return TrainBpe(vocab_size=vocab_size), documents, 0
    loaded = load_recipe(recipe, overrides).recipe
    if loaded.tokenizer is None:
        raise UserError(f"{recipe} has no section tokenizer")
    folder = documents or (loaded.corpus.path if loaded.corpus else None)
    if folder is None:
        raise UserError(f"{recipe} has no section corpus", do="give the documents: --documents")
    return loaded.tokenizer, folder, loaded.seed


def _print(json: bool, values: dict[str, Any]) -> None:
    from feldspar.cli.console import print_json

    if json:
        print_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
