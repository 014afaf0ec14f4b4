"""``feldspar evaluate``: bits per byte of a run or an exported model, and lm-eval's tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.evaluate.text_model import TextModel
    from feldspar.train.load import LoadedRun


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        model: Annotated[Path, typer.Argument(help="Run folder or Hugging Face folder.")],
        text: Annotated[
            list[Path] | None, typer.Option("--text", help="A UTF-8 text file; may be repeated.")
        ] = None,
        tasks: Annotated[
            str | None, typer.Option("--tasks", help="Tasks of lm-eval, separated by commas.")
        ] = None,
        include_path: Annotated[
            Path | None, typer.Option("--include-path", help="Folder of task files for lm-eval.")
        ] = None,
        split: Annotated[
            str, typer.Option("--split", help="Held-out documents of a run: validation or test.")
        ] = "test",
        limit: Annotated[
            int | None,
            typer.Option("--limit", min=1, help="Tokens of each source, or items of each task."),
        ] = None,
        baselines: Annotated[
            bool,
            typer.Option(
                "--baselines",
                help="Compressors and a trigram beside a run's figures; "
                "for pairs the most frequent label and a bag of words.",
            ),
        ] = False,
        infilling: Annotated[
            bool,
            typer.Option("--infilling", help="Fill gaps in a run's held-out documents instead."),
        ] = False,
        pairs: Annotated[
            Path | None,
            typer.Option("--pairs", help="JSON lines of pairs with labels, for a run's template."),
        ] = None,
        checkpoint: Annotated[
            str, typer.Option("--checkpoint", help="Of a run: last, or its number of tokens.")
        ] = "last",
        length_sweep: Annotated[
            str | None,
            typer.Option("--length-sweep", help="Recipe whose evaluation.length_sweep is run."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Measure bits per byte on held-out documents or text, lm-eval's tasks, or longer contexts.

        Example: feldspar evaluate runs/quickstart --text README.md --json
        """
        from feldspar.core.errors import UserError

        check_options(
            text=bool(text),
            tasks=bool(tasks),
            baselines=baselines,
            infilling=infilling,
            pairs=pairs is not None,
            length_sweep=bool(length_sweep),
        )
        loaded, text_model = open_model(model, checkpoint)
        if length_sweep:
            report_length_sweep(loaded, text_model, length_sweep, text or [], split, json)
        elif tasks:
            report_tasks(text_model, tasks, include_path, limit, json)
        elif text:
            report_text(text_model, text, json)
        elif loaded is None:
            raise UserError(
                f"{model} is no run folder, so it has no held-out documents",
                do="name what to evaluate on: --text FILE, or --tasks NAME",
            )
        elif pairs:
            report_pairs(loaded, text_model, pairs, limit, baselines, json)
        elif infilling:
            report_infilling(loaded, text_model, split, limit, json)
        else:
            report_held_out(loaded, text_model, split, limit, baselines, json)


def check_options(
    *, text: bool, tasks: bool, baselines: bool, infilling: bool, pairs: bool, length_sweep: bool
) -> None:
    """Raise UserError for options, given or not, that ask for two things at once."""
    from feldspar.core.errors import UserError

    if text and tasks:
        raise UserError("give --text or --tasks, not both")
    if pairs and (text or tasks or infilling or length_sweep):
        raise UserError("--pairs goes with a run and --baselines, --limit, --checkpoint only")
    if baselines and (text or tasks):
        raise UserError("--baselines goes with --pairs, or a run's held-out documents only")
    if infilling and (text or tasks or baselines):
        raise UserError("--infilling goes with a run's held-out documents only, by itself")
    if length_sweep and (tasks or baselines or infilling):
        raise UserError("--length-sweep goes without --tasks, --baselines and --infilling")


def open_model(path: Path, checkpoint: str = "last") -> "tuple[LoadedRun | None, TextModel]":
    """A run or an exported model on its device; the run too when it is one."""
    from feldspar.core.errors import UserError
    from feldspar.core.progress import say
    from feldspar.recipe.recorded import is_run
    from feldspar.runtime.run_folder import require_run

    if not path.is_dir():
        raise UserError(f"{path} is no folder: neither a run nor a Hugging Face model")
    if is_run(path):
        require_run(path)
    from feldspar.evaluate.exported import open_exported
    from feldspar.recipe.sections.runtime import RuntimeSettings
    from feldspar.release.folder import unfinished_release
    from feldspar.runtime.device import choose_device
    from feldspar.runtime.threads import set_threads
    from feldspar.train.load import load_run
    from feldspar.train.text_model import text_model_of

    if not is_run(path):
        if unfinished := unfinished_release(path):
            say(f"warning: the run that this was released from is unfinished: {unfinished}")
        return None, open_exported(path, choose_device(RuntimeSettings()))
    run = load_run(path, checkpoint)
    if run.unfinished:
        say(f"warning: the run is unfinished: {run.unfinished}")
    set_threads(run.recipe.runtime)
    run.decoder.to(choose_device(run.recipe.runtime))
    return run, text_model_of(run)


def report_text(model: "TextModel", files: list[Path], json: bool) -> None:
    """Each file's figures, and all files' together."""
    from feldspar.cli.console import print_json
    from feldspar.evaluate.loss.documents import text_files
    from feldspar.evaluate.loss.text_loss import total_loss

    losses = text_files(model, files)
    if json:
        print_json(total_loss(losses).as_dict())
        return
    rows = [(str(path), loss.as_dict()) for path, loss in zip(files, losses, strict=True)]
    if len(rows) > 1:
        rows.append(("overall", total_loss(losses).as_dict()))
    print_losses("file", rows)


def report_held_out(
    run: "LoadedRun",
    model: "TextModel",
    split: str,
    limit: int | None,
    baselines: bool,
    json: bool,
) -> None:
    """The figures of each source of the run's shards, and what they are to beat."""
    from feldspar.cli.console import print_json
    from feldspar.evaluate.baselines.all_baselines import held_out_baselines
    from feldspar.evaluate.loss.held_out_loss import evaluate_shards
    from feldspar.train.load import held_out_shards
    from feldspar.train.seen import seen_tokens

    shards = held_out_shards(run)
    result = evaluate_shards(model, shards, split, limit)
    beside: dict[str, dict[str, float]] = {}
    if baselines:
        seen = seen_tokens(run.recipe, shards)
        beside = held_out_baselines(shards, model.tokenizer, seen, split, limit)
    if json:
        print_json(result.as_dict() | ({"baselines": beside} if baselines else {}))
        return
    rows = [(name, loss.as_dict()) for name, loss in result.sources.items()]
    print_losses("source", [*rows, ("overall", result.overall.as_dict())])
    if result.warning:
        typer.echo(result.warning)
    if beside:
        typer.echo(f"\n{'bits/byte':24}" + "".join(f"{name:>17}" for name in beside))
        for source in [*result.sources, "overall"]:
            values = "".join(f"{figures[source]:17.4f}" for figures in beside.values())
            typer.echo(f"{source:24}{values}")


def report_infilling(
    run: "LoadedRun", model: "TextModel", split: str, limit: int | None, json: bool
) -> None:
    """What the middles of held-out documents cost, by source and overall."""
    from feldspar.cli.console import print_json
    from feldspar.evaluate.tasks.filled_gaps import (
        evaluate_infilling,
        infilling_record,
    )
    from feldspar.train.load import held_out_shards

    shards = held_out_shards(run)
    record = infilling_record(evaluate_infilling(model, shards, run.recipe.seed, split, limit))
    if json:
        print_json(record)
        return
    heads = ("documents", "bytes", "bits/byte", "left to right", "exact")
    typer.echo(f"{'source':24}" + "".join(f"{head:>14}" for head in heads))
    for name, figures in [*record["sources"].items(), ("overall", record)]:
        measures = ("bits_per_byte", "bits_per_byte_left_to_right", "exact_match")
        shown = ["-" if figures[key] is None else f"{figures[key]:.4f}" for key in measures]
        counts = [f"{figures['documents']:,}", f"{figures['bytes']:,}"]
        typer.echo(f"{name:24}" + "".join(f"{value:>14}" for value in [*counts, *shown]))


def print_losses(title: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    """One line a file or source."""
    width = max(24, *(len(name) for name, _ in rows))
    typer.echo(f"{title:{width}}{'bits/byte':>12}{'nats/token':>12}{'tokens':>14}{'bytes':>14}")
    for name, figures in rows:
        typer.echo(
            f"{name:{width}}{figures['bits_per_byte']:12.4f}{figures['nats_per_token']:12.4f}"
            f"{figures['tokens']:14,}{figures['bytes']:14,}"
        )


def report_tasks(
    model: "TextModel", tasks: str, include_path: Path | None, limit: int | None, json: bool
) -> None:
    """What lm-eval measures."""
    from feldspar.cli.console import print_json
    from feldspar.evaluate.tasks.lm_eval_adapter import run_lm_eval

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    figures: dict[str, dict[str, Any]] = run_lm_eval(model, names, include_path, limit=limit)
    if json:
        print_json(figures)
        return
    for task, metrics in figures.items():
        for metric, value in metrics.items():
            error = metrics.get(f"{metric}_stderr")
            if not metric.endswith("_stderr"):
                spread = f" +- {error:.4f}" if isinstance(error, float) else ""
                typer.echo(f"{task:24}{metric:20}{value:12.4f}{spread}")


def report_pairs(
    run: "LoadedRun",
    model: "TextModel",
    file: Path,
    limit: int | None,
    baselines: bool,
    json: bool,
) -> None:
    """Labels of pairs, found by the template and layout of the run's last phase of pairs."""
    from feldspar.cli.console import print_json
    from feldspar.evaluate.tasks.labels import evaluate_labels
    from feldspar.tokens.sequences.pairs import encode_pairs, read_pairs
    from feldspar.train.pairs import label_baselines, labelled_phase, pair_layout

    index, template = labelled_phase(run.recipe)
    texts = read_pairs(file, template)[:limit]
    layout = pair_layout(run.recipe, index, model.tokenizer)
    score = evaluate_labels(model, encode_pairs(texts, model.tokenizer), layout, template)
    record = score.as_dict()
    beside = label_baselines(run.recipe, index, texts) if baselines else {}
    if json:
        print_json(record | ({"baselines": beside} if baselines else {}))
        return
    typer.echo(f"{score.n_pairs:,} pairs, {score.parse_failures:.2%} of answers are no labels")
    typer.echo(f"{'labels':24}{'accuracy':>12}{'micro F1':>12}{'macro F1':>12}")
    rows = {"by likelihood": record["by_likelihood"], "by generation": record["by_generation"]}
    for name, figures in (rows | beside).items():
        if figures is not None:
            shown = "".join(f"{value:12.4f}" for value in figures.values())
            typer.echo(f"{name:24}{shown}")


def report_length_sweep(
    run: "LoadedRun | None",
    model: "TextModel",
    recipe: str,
    files: list[Path],
    split: str,
    json: bool,
) -> None:
    """What a recipe's ``evaluation.length_sweep`` says of the model, on text or held-out shards."""
    from feldspar.cli.console import print_json
    from feldspar.core.errors import UserError
    from feldspar.evaluate.length_sweep import sweep_lengths
    from feldspar.evaluate.loss.documents import read_text
    from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split
    from feldspar.recipe.load import load_recipe
    from feldspar.train.load import held_out_shards

    settings = load_recipe(recipe).recipe.evaluation.length_sweep
    if settings is None:
        raise UserError(
            f"{recipe} sets no evaluation.length_sweep",
            do="name a recipe that does, such as alibi-interpolation/small",
        )
    documents = model.tokenizer.encode_documents([read_text(path) for path in files])
    if run is not None and not files:
        shards = held_out_shards(run)
        for name in require_split(shards, split):
            documents += held_out_documents(shards, split, name, model.tokenizer).tokens
    trained = model.context_length
    if run is not None:
        trained = max(run.recipe.context_length(phase) for phase in run.recipe.phases)
    records = sweep_lengths(model, settings, documents, trained)
    if json:
        print_json({"train_length": trained, "results": records})
        return
    typer.echo(f"{'measure':18}{'length':>8}  {'scaling':44}figures")
    for record in records:
        figures = ", ".join(f"{key} {value}" for key, value in shown(record).items())
        head = f"{record['measure']:18}{record['length_tokens']:8,}"
        typer.echo(f"{head}  {record['scaling']:44}{figures}")


def shown(record: dict[str, Any]) -> dict[str, str]:
    """The figures of a record that fit in a line."""
    rounded = {key: value for key, value in record.items() if isinstance(value, float)}
    found = {key: f"{value:.4f}" for key, value in rounded.items()}
    if "crossing_tokens" in record:
        found["crossing_tokens"] = str(record["crossing_tokens"])
    return found
