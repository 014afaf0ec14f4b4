"""``feldspar tokenizer``: train one, extend one, and report how well it fits each source."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.recipe.sections.tokens import TokenizerSettings
    from feldspar.tokens.tokenizer.extension import Extension
    from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. tokenizer.vocab_size=8192")
]
DocumentsOption = Annotated[
    Path | None, typer.Option("--documents", help="A documents folder, as `corpus build` writes it")
]
Output = Annotated[Path, typer.Option("--out", help="Folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    tokenizer = typer.Typer(help="Train or extend a tokenizer, and report its fertility.")
    app.add_typer(tokenizer, name="tokenizer")
    tokenizer.command()(train)
    tokenizer.command()(extend)
    tokenizer.command()(report)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe; or give --documents")] = None,
    overrides: Overrides = None,
    output: Output = Path("tokenizer"),
    documents: DocumentsOption = None,
    vocab_size: Annotated[int | None, typer.Option(help="Tokens; with --documents")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train a recipe's tokenizer, or read it, and write it.

    The folder is one that transformers loads. `tokens build` does this by itself; here the
    tokenizer can be looked at, or shared by recipes.

    Example: feldspar tokenizer train recipe.yaml --out data/tokenizer
    """
    settings, folder, seed = _asked_for(recipe, overrides or [], documents, vocab_size)
    from feldspar.tokens.tokenizer.tokenizer_sources import write_tokenizer

    command = _command("train", recipe, overrides)
    tokenizer = write_tokenizer(settings, folder, seed, output, overwrite, command)
    _print(json, _summary(output, tokenizer))
    if not json:
        _tell_next(output, folder)


def extend(
    recipe: Annotated[str | None, typer.Argument(help="Recipe; or give --base and so on")] = None,
    overrides: Overrides = None,
    output: Output = Path("tokenizer"),
    documents: DocumentsOption = None,
    base: Annotated[
        str | None, typer.Option(help="The tokenizer to extend: folder, file or name")
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Source of the documents in the new language")
    ] = None,
    new_tokens: Annotated[int | None, typer.Option(min=1, help="Pieces to add")] = None,
    script: Annotated[
        list[str] | None, typer.Option(help="Its script; default: that of most of its letters")
    ] = None,
    method: Annotated[str, typer.Option(help="continued or append")] = "continued",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add another language's pieces to a tokenizer.

    Its own ids, and the texts that it encodes today, stay as they are.
    The sources that --corpus does not name are in the old language: their tokens are compared.
    `tokens build` does the same for a recipe whose tokenizer is of type extend.

    Example: feldspar tokenizer extend --base gpt2 --documents data/documents --corpus arabic
    --new-tokens 8000 --out data/tokenizer
    """
    from feldspar.core.errors import UserError
    from feldspar.recipe.sections.tokens import ExtendTokenizer

    if recipe is None:
        if base is None or documents is None or not corpus or new_tokens is None:
            raise UserError(
                "what to extend is not said",
                do="give a recipe, or all of --base, --documents, --corpus and --new-tokens",
            )
        if method not in ("continued", "append"):
            raise UserError(f"--method {method} is not known", allowed="continued, append")
        added = {"corpus": corpus, "new_tokens": new_tokens, "script": script, "method": method}
        settings = ExtendTokenizer.model_validate({"base": base, "with": added})
        folder, seed = documents, 0
    else:
        settings, folder, seed = _from_recipe(recipe, overrides or [], documents)
        if not isinstance(settings, ExtendTokenizer):
            raise UserError(
                f"{recipe}: tokenizer is of type {settings.type}, not extend",
                do="describe the new pieces in the recipe: feldspar config explain tokenizer",
            )
    from feldspar.tokens.tokenizer.tokenizer_sources import write_tokenizer

    command = _command("extend", recipe, overrides)
    tokenizer = write_tokenizer(settings, folder, seed, output, overwrite, command)
    if tokenizer.extension is None:
        raise UserError(
            f"{output} holds no record of its extension",
            do="make it again with --overwrite, or choose another --out",
        )
    if json:
        _print(True, _summary(output, tokenizer) | {"extension": asdict(tokenizer.extension)})
    else:
        _print(False, _summary(output, tokenizer))
        _print_extension(tokenizer.extension)
        _tell_next(output, folder)


def report(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer folder")],
    documents: Annotated[Path, typer.Option("--documents", help="A documents folder")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    json: Json = False,
) -> None:
    """Print tokens per word and bytes per token of each source.

    Example: feldspar tokenizer report data/shards/tokenizer --documents data/documents
    """
    from feldspar.cli.console import print_json
    from feldspar.cli.tables import print_table
    from feldspar.tokens.shards.build_shards import counts_with_ratios
    from feldspar.tokens.tokenizer.document_encoding import measure_fertility

    counted = measure_fertility(tokenizer, documents, split)
    if json:
        print_json({name: counts_with_ratios(counts) for name, counts in counted.items()})
        return
    print_table(
        ("source", "tokens/word", "bytes/token", "documents"),
        (
            (
                name,
                f"{counts.tokens_per_word or 0:.3f}",
                f"{counts.bytes_per_token or 0:.3f}",
                f"{counts.documents:,}",
            )
            for name, counts in counted.items()
        ),
    )


def _tell_next(output: Path, folder: Path) -> None:
    from feldspar.cli.next_steps import quoted, tell_next

    tokenizer, documents = quoted(output), quoted(folder)
    tell_next(
        (
            f"feldspar tokenizer report {tokenizer} --documents {documents}",
            "tokens per word of each source",
        ),
        ("feldspar config explain tokenizer", f"use it in a recipe: path: {output}"),
    )


def _command(name: str, recipe: str | None, overrides: list[str] | None) -> str:
    return shlex.join(["feldspar", "tokenizer", name, *filter(None, [recipe]), *(overrides or [])])


def _summary(output: Path, tokenizer: "TextTokenizer") -> dict[str, Any]:
    return {
        "path": str(output),
        "vocab_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
        "end_of_document_id": tokenizer.end_of_document_id,
        "digest": tokenizer.digest,
    }


def _asked_for(
    recipe: str | None, overrides: list[str], documents: Path | None, vocab_size: int | None
) -> "tuple[TokenizerSettings, Path, int]":
    """Settings, documents and seed, from a recipe or from the options."""
    from feldspar.core.errors import UserError
    from feldspar.recipe.sections.tokens import TrainBpe

    if recipe is not None:
        return _from_recipe(recipe, overrides, documents)
    if documents is None or vocab_size is None:
        raise UserError(
            "what to train on is not said", do="give a recipe, or both --documents and --vocab-size"
        )
    if vocab_size < 257:
        raise UserError(
            "--vocab-size: at least the 256 bytes and one special token are needed",
            found=vocab_size,
            allowed="257 and more",
        )
    return TrainBpe(vocab_size=vocab_size), documents, 0


def _from_recipe(
    recipe: str, overrides: list[str], documents: Path | None
) -> "tuple[TokenizerSettings, Path, int]":
    from feldspar.core.errors import UserError
    from feldspar.recipe.load import load_data_recipe

    loaded = load_data_recipe(recipe, overrides).recipe
    if loaded.tokenizer is None:
        raise UserError(
            f"{recipe} has no section tokenizer",
            do="add one (`feldspar config explain tokenizer`), or give --documents and "
            "--vocab-size in place of the recipe",
        )
    folder = documents or (loaded.corpus.path if loaded.corpus else None)
    if folder is None:
        raise UserError(f"{recipe} has no section corpus", do="give the documents: --documents")
    return loaded.tokenizer, folder, loaded.seed


def _print_extension(extension: "Extension") -> None:
    """Tokens a word, bytes and characters a token, and what stayed, source by source."""
    from feldspar.cli.tables import print_table

    report = extension.report
    typer.echo(
        f"base: {extension.base_vocab_size:,} tokens, digest {extension.base_digest[:12]}\n"
        f"new tokens: {extension.new_tokens:,} ({extension.method}, {extension.characters}); "
        f"unreachable, left out: {report['left_out_unreachable']:,}; "
        f"not used by the texts below: {report['unused_new_tokens']:,}"
    )
    print_table(
        ("source", "tokens/word", "bytes/token", "characters/token", "same"),
        (
            (
                name,
                *(
                    f"{source['before'][key] or 0:.3f} > {source['after'][key] or 0:.3f}"
                    for key in ("tokens_per_word", "bytes_per_token", "characters_per_token")
                ),
                f"{source['identity_rate']:.2%}",
            )
            for name, source in report["sources"].items()
        ),
    )


def _print(json: bool, values: dict[str, Any]) -> None:
    from feldspar.cli.console import print_json

    if json:
        print_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
