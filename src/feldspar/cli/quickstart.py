"""``feldspar quickstart``: raw text to a released model, stage by stage, each told as it ends.

It chains what the other commands do; a stage that finished is not run again.
"""

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.corpus.report import Report
    from feldspar.recipe.load import LoadedRecipe
    from feldspar.tokens.shards.build_shards import ShardReport

PROMPTS = (
    "class Field(object):",
    "def __init__(self,",
    "The following example shows how to",
    "By default, Django",
    "ROMEO.",
)
SAMPLE_TOKENS = 96

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. phases.0.length='2e6 tokens'")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def quickstart(
        overrides: Overrides = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")
        ] = None,
        offline: Annotated[
            bool, typer.Option("--offline", help="Use only what is installed already.")
        ] = False,
    ) -> None:
        """Go the whole way on real data, on a CPU, in minutes: text to a released model.

        Example: feldspar quickstart
        """
        from feldspar.recipe.load import load_recipe

        choice = ["choose.data=offline"] if offline else []
        loaded = load_recipe("quickstart", [*choice, *(overrides or [])])
        folder = out or Path("runs") / loaded.recipe.name
        if is_done(folder, loaded):
            typer.echo(f"{folder} is done: see {folder / 'report.html'}")
            return
        Quickstart(loaded, folder, offline).run()


class Quickstart:
    """The stages in order, and what they take and find."""

    def __init__(self, loaded: "LoadedRecipe", folder: Path, offline: bool) -> None:
        self.loaded = loaded
        self.recipe = loaded.recipe
        self.folder = folder
        self.offline = offline
        self.times = folder / ".seconds.json"
        self.seconds = seconds_before(self.times, loaded)

    def run(self) -> None:
        """Every stage that is not done yet."""
        from feldspar.core.json_files import write_json
        from feldspar.prepare.build import build_documents, build_tokens, require_buildable
        from feldspar.prepare.stages import stages_of
        from feldspar.recipe.recorded import SUMMARY_NAME
        from feldspar.report.run_report import write_run_report
        from feldspar.train.lifecycle import check_folder

        check_folder(self.folder)
        require_buildable(stages_of(self.loaded))
        with self.stage("documents"):
            report = build_documents(self.loaded, self.offline)
        from feldspar.cli.corpus import tell_documents

        tell_documents(report)
        with self.stage("tokens"):
            shards = build_tokens(self.loaded)
        tell_shards(shards)
        with self.stage("training"):
            self._train()
        with self.stage("evaluation"):
            figures = self._evaluate()
        tell_figures(figures)
        with self.stage("release"):
            samples = self._release(figures["bits_per_byte"])
        typer.echo(f"\n{samples[0]}\n")
        summary = figures | {
            "documents": documents_summary(report),
            "samples": samples,
            "seconds": self.seconds | {"total": sum(self.seconds.values())},
            "recipe": self.loaded.digest,
        }
        write_json(self.folder / SUMMARY_NAME, summary)
        self.times.unlink()
        page = write_run_report([self.folder])
        typer.echo(f"release: {self.folder / 'release'}\nreport:  {page}")

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Name a stage and add up its time, over calls that were stopped too."""
        from feldspar.core.json_files import write_json

        typer.echo(f"== {name}")
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.seconds[name] = spent
            record = {"recipe": self.loaded.digest, "seconds": self.seconds}
            write_json(self.times, record)

    def _train(self) -> None:
        from feldspar.train.run import train

        result = train(self.loaded, self.folder)
        typer.echo(f"{result.position:,} tokens in {result.steps:,} steps")

    def _evaluate(self) -> dict[str, Any]:
        """Bits per byte of the model and of the baselines, per source and overall."""
        from feldspar.evaluate.baselines.all_baselines import held_out_baselines
        from feldspar.evaluate.loss.held_out_loss import evaluate_shards
        from feldspar.train.data import open_shards
        from feldspar.train.opened_model import open_model
        from feldspar.train.seen import seen_tokens

        opened = open_model(self.folder)
        run, model = opened.run, opened.text_model
        assert run is not None, "training has made it"
        shards = open_shards(run.recipe)
        losses = evaluate_shards(model, shards)
        figures = {"overall": losses.overall.bits_per_byte} | {
            name: loss.bits_per_byte for name, loss in losses.sources.items()
        }
        baselines = held_out_baselines(shards, model.tokenizer, seen_tokens(run.recipe, shards))
        if losses.warning:
            typer.echo(losses.warning)
        return {
            "not_held_out": list(losses.not_held_out),
            "bits_per_byte": figures,
            "baselines": {name: values["overall"] for name, values in baselines.items()},
            "baselines_by_source": baselines,
        }

    def _release(self, held_out: dict[str, float]) -> list[str]:
        from feldspar.release.release_run import release_run

        release = release_run(self.folder, self.folder / "release", True, held_out)
        return samples_of(release, self.recipe.seed)


def seconds_before(path: Path, loaded: "LoadedRecipe") -> dict[str, float]:
    """What earlier calls of this recipe spent on each stage before they were stopped."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        spent = record["seconds"] if record["recipe"] == loaded.digest else {}
        return {str(stage): float(seconds) for stage, seconds in spent.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # times that cannot be read are counted from here on


def is_done(folder: Path, loaded: "LoadedRecipe") -> bool:
    """Whether the folder holds a finished quickstart of this recipe, its release whole."""
    from feldspar.core.errors import RunError
    from feldspar.core.progress import say
    from feldspar.release.folder import verify_release
    from feldspar.report.run_summary import read_summary

    release = folder / "release"
    if not (folder / "report.html").is_file() or not release.is_dir():
        return False
    try:
        summary = read_summary(folder)
        same = summary is not None and summary.recipe == loaded.digest
        return same and not verify_release(release)
    except RunError as error:
        say(f"{error.what}: it is made again")
        return False


def samples_of(release: Path, seed: int) -> list[str]:
    """Text that the released folder writes through transformers, one sample a prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from feldspar.huggingface.register import register_with_transformers

    logging.disable_progress_bar()
    register_with_transformers()
    tokenizer: Any = AutoTokenizer.from_pretrained(release)
    model = AutoModelForCausalLM.from_pretrained(release)
    samples = []
    for index, prompt in enumerate(PROMPTS):
        torch.manual_seed(seed + index)
        tokens = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            written = model.generate(
                **tokens, max_new_tokens=SAMPLE_TOKENS, do_sample=True, temperature=0.7, top_k=40
            )
        samples.append(tokenizer.decode(written[0], skip_special_tokens=True))
    return samples


def documents_summary(report: "Report") -> dict[str, Any]:
    """Documents read, removed by reason, and kept."""
    sources = report.sources.values()
    return {
        "read": sum(counts.read.documents for counts in sources),
        "kept": sum(counts.kept.documents for counts in sources),
        "removed": {reason: amount.documents for reason, amount in report.removed.items()},
    }


def tell_shards(report: "ShardReport") -> None:
    """A line a source: tokens, share of training and fertility."""
    train = report.splits["train"]
    total = sum(counts.tokens for counts in train.values())
    typer.echo(f"{'source':14}{'tokens':>12}{'share':>8}{'bytes/token':>13}{'tokens/word':>13}")
    for name, counts in train.items():
        typer.echo(
            f"{name:14}{counts.tokens:12,}{counts.tokens / total:8.1%}"
            f"{counts.bytes_per_token:13.2f}{counts.tokens_per_word:13.2f}"
        )


def tell_figures(figures: dict[str, Any]) -> None:
    """Held-out bits per byte of the model beside every baseline."""
    columns = {"model": figures["bits_per_byte"]} | figures["baselines_by_source"]
    typer.echo("held-out bits per byte (lower is better)")
    typer.echo(f"{'source':14}" + "".join(f"{name:>17}" for name in columns))
    for source in figures["bits_per_byte"]:
        values = "".join(f"{values[source]:17.3f}" for values in columns.values())
        typer.echo(f"{source:14}{values}")
