"""``feldspar tokens``: documents to shards, what shards hold, and how their sources differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.tokens.shards.build_shards import ShardReport

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. shards.path=data/shards")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    tokens = typer.Typer(help="Build token shards from documents, and show them.")
    app.add_typer(tokens, name="tokens")
    tokens.command()(build)
    tokens.command()(show)
    tokens.command()(compare)


def build(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one")],
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: cores.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other shards.")] = False,
    json: Json = False,
) -> None:
    """Encode a recipe's documents into its shards folder; documents that are missing come first.

    A finished folder of the same settings and documents is kept.

    Example: feldspar tokens build quickstart shards.path=data/shards
    """
    from feldspar.core.errors import UserError
    from feldspar.prepare.build import build_missing
    from feldspar.prepare.stages import STARTS
    from feldspar.recipe.load import load_data_recipe
    from feldspar.tokens.shards.build_shards import build_shards

    loaded = load_data_recipe(recipe, overrides or [])
    asked = loaded.recipe
    corpus, tokenizer, shards = asked.corpus, asked.tokenizer, asked.shards
    if corpus is None or tokenizer is None or shards is None:
        sections = {"corpus": corpus, "tokenizer": tokenizer, "shards": shards}
        missing = [name for name, section in sections.items() if section is None]
        raise UserError(
            f"{recipe} has no section {' and no section '.join(missing)}: nothing to encode"
        )
    if not corpus.path.exists():
        build_missing(loaded, without=(*STARTS, "tokenizer", "shards", "pairs"))
    report = build_shards(
        corpus.path,
        tokenizer,
        shards,
        seed=asked.seed,
        workers=workers,
        command=f"feldspar tokens build {loaded.arguments}",
        overwrite=overwrite,
        fill_in_the_middle=asked.infills,
    )
    _print(report, json)


def show(
    folder: Annotated[Path, typer.Argument(help="A shards folder")], json: Json = False
) -> None:
    """Show what a shards folder holds, and check it.

    Example: feldspar tokens show data/shards
    """
    from feldspar.tokens.shards.build_shards import ShardReport
    from feldspar.tokens.shards.shard_folder import ShardSet

    shards = ShardSet.open(folder)
    shards.verify()
    _print(ShardReport.of(folder, shards.manifest, up_to_date=True), json)


def _print(report: "ShardReport", json: bool) -> None:
    from feldspar.cli.console import print_json

    if json:
        print_json(report.as_dict())
        return
    typer.echo(
        f"{report.path}: vocabulary {report.vocab_size:,}, documents end with "
        f"{report.end_of_document}, digest {report.digest[:12]}"
    )
    head = f"{'split':12}{'source':24}{'documents':>12}{'tokens':>16}{'text bytes':>16}"
    typer.echo(head + f"{'bytes/token':>13}{'tokens/word':>13}")
    for split, sources in report.splits.items():
        for name, counts in sources.items():
            typer.echo(
                f"{split:12}{name:24}{counts.documents:12,}{counts.tokens:16,}"
                f"{counts.text_bytes:16,}{counts.bytes_per_token or 0:13.2f}"
                f"{counts.tokens_per_word or 0:13.2f}"
            )
    skipped = sum(c.empty_documents for sources in report.splits.values() for c in sources.values())
    if skipped:
        typer.echo(f"{skipped:,} documents without text were left out")


def compare(
    folder: Annotated[Path, typer.Argument(help="A shards folder")],
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    alpha: Annotated[
        float, typer.Option(min=0, help="Added to every count before KL divergence.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Compare the sources' tokens: KL divergence and cosine, for all tokens and for groups.

    Example: feldspar tokens compare data/shards
    """
    from dataclasses import asdict

    from feldspar.cli.console import print_json
    from feldspar.tokens.shards.distribution import compare_sources
    from feldspar.tokens.shards.shard_folder import ShardSet

    names, compared, unique = compare_sources(ShardSet.open(folder), split, alpha)
    if json:
        alone = {
            name: {"tokens": tokens, "share": share}
            for name, (tokens, share) in zip(names, unique, strict=True)
        }
        groups = [asdict(each) for each in compared]
        print_json({"alpha": alpha, "sources": names, "groups": groups, "unique": alone})
        return
    width = max(map(len, names)) + 2
    for each in compared:
        for title, matrix in (
            (f"KL(row || column) in nats, alpha {alpha:g}", each.divergence),
            ("cosine", each.cosine),
        ):
            typer.echo(f"{each.group} ({each.tokens:,} tokens of the vocabulary): {title}")
            typer.echo(" " * width + "".join(f"{name:>{max(width, 9)}}" for name in names))
            for name, row in zip(names, matrix, strict=True):
                cells = ("-" if value is None else f"{value:.4f}" for value in row)
                typer.echo(f"{name:{width}}" + "".join(f"{c:>{max(width, 9)}}" for c in cells))
    for name, (tokens, share) in zip(names, unique, strict=True):
        typer.echo(f"only in {name}: {tokens:,} tokens of the vocabulary, {share:.2%} of its text")
