"""Go from raw text to a released model, stage by stage; a stage that finished is not run again."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feldspar.core.errors import RunError
from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.core.progress import say
from feldspar.corpus.report import Report
from feldspar.model.rows import model_shapes
from feldspar.prepare.build import build_documents, build_tokens, require_buildable
from feldspar.prepare.stages import stages_of
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.recorded import DRAWING_NAME, SUMMARY_NAME
from feldspar.release.release_run import release_run
from feldspar.release.verify import verify_files_of
from feldspar.report.run_report import held_out_figure, write_run_report
from feldspar.report.run_summary import Summary, read_summary
from feldspar.train.evaluation import HeldOutFigures, held_out_figures
from feldspar.train.lifecycle import check_folder
from feldspar.train.opened_model import open_model
from feldspar.train.run import train

PROMPTS = (
    "class Field(object):",
    "def __init__(self,",
    "The following example shows how to",
    "By default, Django",
    "ROMEO.",
)
SAMPLE_TOKENS = 96


class Quickstart:
    """The stages of the quickstart in order, with the seconds of each.

    ``begun`` is called with the name of each stage, ``ended`` with the name and the result.
    """

    def __init__(
        self,
        loaded: LoadedRecipe,
        folder: Path,
        offline: bool = False,
        begun: Callable[[str], None] = lambda name: None,
        ended: Callable[[str, Any], None] = lambda name, result: None,
    ) -> None:
        self.loaded = loaded
        self.folder = folder
        self.offline = offline
        self.begun = begun
        self.ended = ended
        self.times = folder / ".seconds.json"
        self.seconds = seconds_before(self.times, loaded)

    def run(self) -> Path:
        """Run every unfinished stage; return the report's page."""
        check_folder(self.folder)
        require_buildable(stages_of(self.loaded))
        report = self._do("documents", lambda: build_documents(self.loaded, self.offline))
        self._do("tokens", lambda: build_tokens(self.loaded))
        trained = self._do("training", lambda: train(self.loaded, self.folder))
        figures = self._do(
            "evaluation", lambda: held_out_figures(open_model(self.folder), baselines=True)
        )
        samples = self._do("release", lambda: self._release(figures))
        summary = figures_record(figures) | {
            "documents": documents_summary(report),
            "parameters": parameters_of(self.loaded),
            "trained_tokens": trained.position,
            "samples": samples,
            "seconds": self.seconds | {"total": sum(self.seconds.values())},
            "recipe": self.loaded.digest,
            "machine": machine(),
            "date": datetime.now(UTC).date().isoformat(),
        }
        write_json(self.folder / SUMMARY_NAME, summary)
        drawing = held_out_figure(Summary.model_validate(summary)).standalone
        write_atomically(self.folder / DRAWING_NAME, drawing + "\n")
        self.times.unlink()
        return write_run_report([self.folder])

    def _do(self, name: str, work: Callable[[], Any]) -> Any:
        with self.stage(name):
            result = work()
        self.ended(name, result)
        return result

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Announce a stage and add up its seconds, including those of calls that were stopped."""
        self.begun(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.seconds[name] = spent
            write_json(self.times, {"recipe": self.loaded.digest, "seconds": self.seconds})

    def _release(self, figures: HeldOutFigures) -> list[str]:
        release = release_run(self.folder, self.folder / "release", True, figures.as_dict())
        return samples_of(release, self.loaded.recipe.seed)


def figures_record(figures: HeldOutFigures) -> dict[str, Any]:
    """Return bits per byte of the model and of the baselines, by source and overall."""
    losses = figures.loss
    sources = {name: loss.bits_per_byte for name, loss in losses.sources.items()}
    return {
        "not_held_out": list(losses.not_held_out),
        "bits_per_byte": {"overall": losses.overall.bits_per_byte} | sources,
        "baselines": {name: values["overall"] for name, values in figures.baselines.items()},
        "baselines_by_source": {name: dict(each) for name, each in figures.baselines.items()},
    }


def parameters_of(loaded: LoadedRecipe) -> int:
    """Count the parameters of the recipe's model."""
    return model_shapes(loaded.recipe.model, loaded.recipe.soft_prompt_length).parameters


def seconds_before(path: Path, loaded: LoadedRecipe) -> dict[str, float]:
    """Return the seconds that earlier, stopped calls of this recipe spent on each stage."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        spent = record["seconds"] if record["recipe"] == loaded.digest else {}
        return {str(stage): float(seconds) for stage, seconds in spent.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # unreadable times count as none


def is_done(folder: Path, loaded: LoadedRecipe) -> bool:
    """Tell whether the folder holds a finished quickstart of this recipe with a whole release."""
    release = folder / "release"
    if not (folder / "report.html").is_file() or not release.is_dir():
        return False
    try:
        summary = read_summary(folder)
        same = summary is not None and summary.recipe == loaded.digest
        return same and not verify_files_of(release)
    except RunError as error:
        say(f"{error.what}: it is made again")
        return False


def samples_of(release: Path, seed: int) -> list[str]:
    """Let the released model continue each prompt through ``transformers``; return the texts."""
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


def documents_summary(report: Report) -> dict[str, Any]:
    """Count documents read, removed by reason, and kept."""
    sources = report.sources.values()
    return {
        "read": sum(counts.read.documents for counts in sources),
        "kept": sum(counts.kept.documents for counts in sources),
        "removed": {reason: amount.documents for reason, amount in report.removed.items()},
    }
