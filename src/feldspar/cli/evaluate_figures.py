"""Measure a model and print the figures, one function for each measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from feldspar.cli.console import print_json
from feldspar.cli.tables import print_table
from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from feldspar.train.opened_model import Model

    Drawn = tuple[int | None, str | None, float | None, float | None, int | None, int | None]


def show_text(model: "Model", files: list[Path], json: bool) -> None:
    """Print the loss of each text file, and of all files together."""
    from feldspar.evaluate.loss.documents import text_files
    from feldspar.evaluate.loss.text_loss import total_loss

    losses = text_files(model.text_model, files)
    if json:
        print_json(total_loss(losses).as_dict())
        return
    rows = [(str(path), loss.as_dict()) for path, loss in zip(files, losses, strict=True)]
    if len(rows) > 1:
        rows.append(("overall", total_loss(losses).as_dict()))
    print_losses("file", rows)


def show_held_out(
    model: "Model",
    split: str,
    limit: int | None,
    baselines: bool,
    shards: Path | None,
    json: bool,
) -> None:
    """Print the loss of each source of a run's shards, and the baselines."""
    from feldspar.train.evaluation import held_out_figures

    figures = held_out_figures(model, split, limit, baselines, shards)
    if json:
        print_json(figures.as_dict())
        return
    rows = {name: loss.as_dict() for name, loss in figures.loss.sources.items()}
    rows["overall"] = figures.loss.overall.as_dict()
    print_losses("source", list(rows.items()))
    if figures.loss.warning:
        typer.echo(figures.loss.warning)
    if baselines:
        typer.echo()
        print_table(
            ("bits/byte", *figures.baselines),
            (
                (name, *(f"{values[name]:.4f}" for values in figures.baselines.values()))
                for name in rows
            ),
        )


def print_losses(title: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    """Print one row for each file or source."""
    print_table(
        (title, "bits/byte", "nats/token", "tokens", "bytes"),
        (
            (
                name,
                f"{figures['bits_per_byte']:.4f}",
                f"{figures['nats_per_token']:.4f}",
                f"{figures['tokens']:,}",
                f"{figures['bytes']:,}",
            )
            for name, figures in rows
        ),
    )


def show_infilling(
    model: "Model", split: str, limit: int | None, shards: Path | None, json: bool
) -> None:
    """Print the loss on the middles of held-out documents in both orders, by source and overall."""
    from feldspar.train.evaluation import infilling_figures

    record = infilling_figures(model, split, limit, shards)
    if json:
        print_json(record)
        return
    found = {**record["sources"], "overall": record}
    readings = record["bits_per_byte"]
    print_table(
        ("source", "gaps", "bytes", *readings, *(f"exact, {each}" for each in readings)),
        (
            (
                name,
                f"{own['gaps']:,}",
                f"{own['bytes']:,}",
                *(
                    f"{own[measure][each]:.4f}" if own["gaps"] else "-"
                    for measure in ("bits_per_byte", "exact_match")
                    for each in readings
                ),
            )
            for name, own in found.items()
        ),
    )


def show_tasks(
    model: "Model", tasks: str, include_path: Path | None, limit: int | None, json: bool
) -> None:
    """Print the figures of lm-eval's tasks."""
    if json:
        from feldspar.train.evaluation import task_figures

        print_json(task_figures(model, task_names(tasks), include_path, limit))
        return
    from feldspar.evaluate.tasks.lm_eval_adapter import run_lm_eval

    found = run_lm_eval(model.text_model, task_names(tasks), include_path, limit=limit)
    rows = []
    for result in found:
        for metric, value in result.metrics.items():
            error = result.errors.get(metric)
            spread = "-" if error is None else f"+- {error:.4f}"
            is_accuracy = metric.startswith("acc") and result.chance is not None
            chance = f"{result.chance:.2f}" if is_accuracy else "-"
            items = "-" if result.items is None else f"{result.items:,}"
            rows.append((result.task, metric, f"{value:.4f}", spread, chance, items))
    print_table(("task", "metric", "value", "standard error", "chance", "items"), rows, left=2)


def task_names(tasks: str) -> list[str]:
    """Return the names of ``--tasks``. Raises UserError where there is none."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UserError("--tasks: a name is needed", do="list them: feldspar evaluate --list-tasks")
    return names


def list_tasks() -> None:
    """Print the bundled tasks."""
    from feldspar.evaluate.tasks.bundled_tasks import bundled_tasks

    print_table(
        ("task", "what it asks for", "source", "licence", "items", "chance"),
        (
            (
                task.name,
                task.about,
                task.source,
                task.licence,
                f"{task.items}",
                f"{task.chance:.2f}",
            )
            for task in bundled_tasks()
        ),
        left=4,
        fold=("what it asks for", "source"),
    )
    typer.echo("\n--tasks bundled runs all of them. They need no network.")


def show_messages(model: "Model", file: Path, limit: int | None, json: bool) -> None:
    """Print the loss of the answers in a file of conversations."""
    from feldspar.train.evaluation import message_figures

    record = message_figures(model, file, limit)
    if json:
        print_json(record)
        return
    print_table(
        ("conversations", "tokens of answers", "nats/token"),
        [
            (
                f"{record['conversations']:,}",
                f"{record['tokens']:,}",
                f"{record['nats_per_token']:.4f}",
            )
        ],
    )


def show_pairs(model: "Model", file: Path, limit: int | None, baselines: bool, json: bool) -> None:
    """Print how many labels of pairs are right, by likelihood, by generation and by baselines."""
    from feldspar.train.evaluation import pair_figures

    record = pair_figures(model, file, limit, baselines)
    if json:
        print_json(record)
        return
    typer.echo(
        f"{record['pairs']:,} pairs, {record['parse_failures']:.2%} of answers are no labels"
    )
    rows = {"by likelihood": record["by_likelihood"], "by generation": record["by_generation"]}
    print_table(
        ("labels", "accuracy", "micro F1", "macro F1"),
        (
            (name, *(f"{value:.4f}" for value in figures.values()))
            for name, figures in (rows | record.get("baselines", {})).items()
            if figures is not None
        ),
    )


def show_problems(
    model: "Model", problems: str, limit: int | None, drawn: "Drawn", json: bool
) -> None:
    """Print how many problems programs of the model solve, as pass@k."""
    from feldspar.evaluate.programs.completions import CompletionSettings
    from feldspar.evaluate.programs.pass_at_k import solve_problems
    from feldspar.evaluate.programs.problems import read_problems
    from feldspar.model.generation import Sampling

    samples, k, temperature, top_p, max_new_tokens, seed = drawn
    settings = CompletionSettings(
        samples=samples or 1,
        max_new_tokens=max_new_tokens or 512,
        sampling=Sampling(
            0.2 if temperature is None else temperature, top_p=0.95 if top_p is None else top_p
        ),
        seed=seed or 0,
    )
    ks = ks_of(k or "1", settings.samples)
    found = solve_problems(model.text_model, read_problems(problems)[:limit], settings).as_dict(ks)
    if json:
        print_json(found)
        return
    print_table(
        ("measure", "value", "standard error"),
        (
            (
                f"pass@{number}",
                f"{figures['value']:.4f}",
                "-" if (error := figures["standard_error"]) is None else f"+- {error:.4f}",
            )
            for number, figures in found["pass_at"].items()
        ),
    )
    outcomes = ", ".join(f"{count} {name}" for name, count in found["outcomes"].items())
    typer.echo(f"{found['problems']} problems, {found['samples']} samples of each: {outcomes}")
    if found["too_long"]:
        typer.echo(f"{found['too_long']} prompts leave no room in the context: not solved")


def ks_of(text: str, samples: int) -> list[int]:
    """Return the numbers of ``--k``. Raises UserError unless each is from 1 to ``samples``."""
    found = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= number <= samples for number in found):
        raise UserError(
            "--k: numbers from 1 to --samples are needed, separated by commas",
            found=f"--k {text}, {samples} samples",
        )
    return found


def show_lengths(
    model: "Model",
    recipe: str,
    files: list[Path],
    split: str,
    shards: Path | None,
    json: bool,
) -> None:
    """Print a model's figures at each length of a recipe's ``evaluation.length_sweep``."""
    from feldspar.train.evaluation import length_figures, sweep_of

    found = length_figures(model, sweep_of(recipe), files, split, shards)
    if json:
        print_json(found)
        return
    print_table(
        ("measure", "scaling", "length", "figures"),
        (
            (
                record["measure"],
                record["scaling"],
                f"{record['length_tokens']:,}",
                ", ".join(f"{key} {value}" for key, value in in_a_line(record).items()),
            )
            for record in found["results"]
        ),
        left=2,
        fold=("figures",),
    )


def in_a_line(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of a record that fit in a line."""
    found = {key: f"{value:.4f}" for key, value in record.items() if isinstance(value, float)}
    if "crossing_tokens" in record:
        crossing = record["crossing_tokens"]
        found["crossing_tokens"] = "never" if crossing is None else str(crossing)
    return found
