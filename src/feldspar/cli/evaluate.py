"""``feldspar evaluate``: bits per byte of a run or an exported model, tasks and programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli.generate import CheckpointName

TextFiles = Annotated[
    list[Path] | None, typer.Option("--text", help="A UTF-8 text file; may be repeated.")
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks", help="Tasks, separated by commas: bundled (all of --list-tasks), or lm-eval's."
    ),
]
TaskFiles = Annotated[
    Path | None, typer.Option("--include-path", help="Folder of task files for lm-eval.")
]
Split = Annotated[
    str, typer.Option("--split", help="Held-out documents of a run: validation or test.")
]
Shards = Annotated[
    Path | None,
    typer.Option("--shards", help="Folder of a run's shards, where its recipe names another."),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Tokens of a source, items of a task, or problems."),
]
Baselines = Annotated[
    bool,
    typer.Option(
        "--baselines",
        help="Compressors and a trigram beside a run's figures; "
        "for pairs the most frequent label and a bag of words.",
    ),
]
Infilling = Annotated[
    bool, typer.Option("--infilling", help="Fill gaps in a run's held-out documents instead.")
]
MessageFile = Annotated[
    Path | None,
    typer.Option("--messages", help="JSON lines of conversations: loss of the answers."),
]
PairFile = Annotated[
    Path | None,
    typer.Option("--pairs", help="JSON lines of pairs with labels, for a run's template."),
]
LengthSweep = Annotated[
    str | None,
    typer.Option("--length-sweep", help="Recipe whose evaluation.length_sweep is run."),
]
Problems = Annotated[
    str | None,
    typer.Option("--problems", help="humaneval, or a file: run programs that the model writes."),
]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, help="Programs for each problem (1).")
]
Ks = Annotated[str | None, typer.Option("--k", help="The k of pass@k, separated by commas (1).")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0.0, help="Of the programs' tokens (0.2).")
]
TopP = Annotated[float | None, typer.Option("--top-p", help="Of the programs' tokens (0.95).")]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="The most of a program (512).")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the programs (0).")
]


ListTasks = Annotated[
    bool, typer.Option("--list-tasks", help="List the tasks that come with feldspar instead.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        model: Annotated[
            Path | None, typer.Argument(help="Run folder or Hugging Face folder.")
        ] = None,
        text: TextFiles = None,
        tasks: Tasks = None,
        include_path: TaskFiles = None,
        split: Split = "test",
        shards: Shards = None,
        limit: Limit = None,
        baselines: Baselines = False,
        infilling: Infilling = False,
        pairs: PairFile = None,
        messages: MessageFile = None,
        checkpoint: CheckpointName = "last",
        length_sweep: LengthSweep = None,
        problems: Problems = None,
        samples: Samples = None,
        k: Ks = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        max_new_tokens: NewTokens = None,
        seed: Seed = None,
        list_bundled: ListTasks = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Measure a model: bits per byte, tasks, programs, contexts.

        Without options, a run is measured on its held-out documents.

        Example: feldspar evaluate runs/quickstart --text README.md --json
        """
        check_options(
            text=bool(text),
            tasks=bool(tasks),
            baselines=baselines,
            infilling=infilling,
            pairs=pairs is not None,
            messages=messages is not None,
            length_sweep=bool(length_sweep),
            shards=shards is not None,
        )
        drawn = (samples, k, temperature, top_p, max_new_tokens, seed)
        others = (text, tasks, baselines, infilling, pairs, messages, length_sweep, shards)
        check_problems(bool(problems), drawn, others)
        from feldspar.cli import evaluate_figures as figures
        from feldspar.core.errors import UserError

        if list_bundled:
            figures.list_tasks()
            return
        if model is None:
            raise UserError("evaluate: a run folder or a Hugging Face folder is needed")
        if tasks:
            from feldspar.evaluate.tasks.bundled_tasks import set_up_process

            set_up_process(figures.task_names(tasks))
        import feldspar

        opened = feldspar.open_model(model, checkpoint=checkpoint)
        if problems:
            figures.show_problems(opened, problems, limit, drawn, json)
        elif length_sweep:
            figures.show_lengths(opened, length_sweep, text or [], split, shards, json)
        elif tasks:
            figures.show_tasks(opened, tasks, include_path, limit, json)
        elif text:
            figures.show_text(opened, text, json)
        elif pairs:
            figures.show_pairs(opened, pairs, limit, baselines, json)
        elif messages:
            figures.show_messages(opened, messages, limit, json)
        elif infilling:
            figures.show_infilling(opened, split, limit, shards, json)
        else:
            figures.show_held_out(opened, split, limit, baselines, shards, json)


def check_options(
    *,
    text: bool,
    tasks: bool,
    baselines: bool,
    infilling: bool,
    pairs: bool,
    messages: bool,
    length_sweep: bool,
    shards: bool,
) -> None:
    """Raise UserError for options that ask for two things at once."""
    from feldspar.core.errors import UserError

    if text and tasks:
        raise UserError("give --text or --tasks, not both")
    if pairs and (text or tasks or infilling or length_sweep):
        raise UserError("--pairs goes with a run and --baselines, --limit, --checkpoint only")
    if messages and (text or tasks or infilling or length_sweep or pairs or baselines):
        raise UserError("--messages goes with --limit, --checkpoint and --json only")
    if baselines and (text or tasks):
        raise UserError("--baselines goes with --pairs, or a run's held-out documents only")
    if infilling and (text or tasks or baselines):
        raise UserError("--infilling goes with a run's held-out documents only, by itself")
    if length_sweep and (tasks or baselines or infilling):
        raise UserError("--length-sweep goes without --tasks, --baselines and --infilling")
    if shards and (text or tasks or pairs or messages):
        raise UserError("--shards goes with a run's held-out documents only")


def check_problems(problems: bool, drawn: Sequence[object], others: Sequence[object]) -> None:
    """Raise UserError for --problems beside another measure, or its options without it."""
    from feldspar.core.errors import UserError

    if problems and any(others):
        raise UserError(
            "--problems goes with --samples, --k, --temperature, --top-p, --max-new-tokens, "
            "--seed, --limit and --checkpoint only"
        )
    if not problems and any(value is not None for value in drawn):
        raise UserError(
            "--samples, --k, --temperature, --top-p, --max-new-tokens and --seed go with "
            "--problems only"
        )
