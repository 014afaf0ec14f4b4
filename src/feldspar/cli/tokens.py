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
    tokens.command()(order)


def build(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one")],
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: cores.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other shards.")] = False,
    json: Json = False,
) -> None:
    """Encode a recipe's documents into its shards folder.

    Documents that are missing are built first. A finished folder of the same settings and documents
    is kept.

    Example: feldspar tokens build quickstart shards.path=data/shards
    """
    import feldspar

    loaded = feldspar.load_recipe(recipe, overrides)
    _print(feldspar.build_shards(loaded, workers=workers, overwrite=overwrite), json)
    if not json:
        from feldspar.cli.next_steps import tell_next

        tell_next((f"feldspar train {loaded.arguments}", "train on these shards"))


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
    from feldspar.cli.tables import print_table

    if json:
        print_json(report.as_dict())
        return
    typer.echo(
        f"{report.path}: vocabulary {report.vocab_size:,}, documents end with "
        f"{report.end_of_document}, digest {report.digest[:12]}"
    )
    print_table(
        ("split", "source", "documents", "tokens", "text bytes", "bytes/token", "tokens/word"),
        (
            (
                split,
                name,
                f"{counts.documents:,}",
                f"{counts.tokens:,}",
                f"{counts.text_bytes:,}",
                f"{counts.bytes_per_token or 0:.2f}",
                f"{counts.tokens_per_word or 0:.2f}",
            )
            for split, sources in report.splits.items()
            for name, counts in sources.items()
        ),
        left=2,
    )
    from feldspar.core.readable import counted

    skipped = sum(c.empty_documents for sources in report.splits.values() for c in sources.values())
    if skipped:
        typer.echo(f"{counted(skipped, 'document')} without text left out")


def compare(
    folder: Annotated[Path, typer.Argument(help="A shards folder")],
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    alpha: Annotated[
        float, typer.Option(min=0, help="Added to every count before KL divergence.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Compare the tokens of the sources of a shards folder.

    The measures are KL divergence and cosine, for all tokens and for groups of them.

    Example: feldspar tokens compare data/shards
    """
    from dataclasses import asdict

    from feldspar.cli.console import print_json
    from feldspar.cli.tables import print_table
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
    for each in compared:
        for title, matrix in (
            (f"KL(row || column) in nats, alpha {alpha:g}", each.divergence),
            ("cosine", each.cosine),
        ):
            typer.echo(f"{each.group} ({each.tokens:,} tokens of the vocabulary): {title}")
            print_table(
                ("", *names),
                (
                    (name, *("-" if value is None else f"{value:.4f}" for value in row))
                    for name, row in zip(names, matrix, strict=True)
                ),
            )
    for name, (tokens, share) in zip(names, unique, strict=True):
        typer.echo(f"only in {name}: {tokens:,} tokens of the vocabulary, {share:.2%} of its text")


def order(
    release: Annotated[Path, typer.Argument(help="A release, which records the order.")],
    step: Annotated[int, typer.Option("--step", min=1, help="Step of the run.")],
    shards: Annotated[
        Path | None, typer.Option("--shards", help="Its shards; default: those of its recipe.")
    ] = None,
    json: Json = False,
) -> None:
    """Show which tokens of which shards a step of a released run read.

    Example: feldspar tokens order runs/quickstart/release --step 100
    """
    import feldspar
    from feldspar.cli.console import print_json
    from feldspar.cli.tables import print_table

    found = feldspar.step_order(release, step, shards=shards)
    if json:
        print_json(found)
        return
    typer.echo(
        f"step {step:,}: {len(found['sequences']):,} sequences of {found['context_length']:,} "
        f"tokens, phase {found['phase']}"
    )
    print_table(
        ("sequence", "source", "epoch", "file", "first token", "tokens"),
        (
            (
                f"{place['sequence']:,}",
                place["source"],
                f"{place['epoch']:,}",
                part["file"],
                f"{part['first_token']:,}",
                f"{part['tokens']:,}",
            )
            for place in found["sequences"]
            for part in place["reads"]
        ),
        left=4,
    )
