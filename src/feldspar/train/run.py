"""A run of a language model: from a recipe and its shards to the last checkpoint."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.loss.training_validation import HeldOutSource, held_out_sources, validate
from feldspar.plan.memory import drift_warnings
from feldspar.plan.summary import Plan, effective_table, plan_recipe
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.write import recipe_text
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.run_folder import RunFolder
from feldspar.sparsity.census import take_census
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.data import (
    TrainingData,
    open_shards,
    open_training_data,
    source_tokens,
    with_vocabulary,
)
from feldspar.train.examples import check_same_examples, open_examples
from feldspar.train.gradient_noise import GradientNoise
from feldspar.train.language_model import LanguageModelling, language_model
from feldspar.train.lifecycle import OpenRun, RunResult, open_run
from feldspar.train.load import masks_of_checkpoint
from feldspar.train.observers import Checkpoints, Guards, Metrics, Validation
from feldspar.train.run_tokenizer import keep_tokenizer
from feldspar.train.start import parent_record, start_checkpoint, with_carried
from feldspar.train.steering import Steering
from feldspar.train.trainer import Trainer


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run: its data, its plan, and its recipe completed by shards and start."""

    loaded: LoadedRecipe
    plan: Plan
    data: TrainingData
    start: Checkpoint | None
    """The checkpoint that ``start_from`` names."""

    @classmethod
    def open(cls, loaded: LoadedRecipe) -> "Inputs":
        """Open the shards and files that a recipe names. Raises UserError where they do not fit."""
        shards = open_shards(loaded.recipe)
        start = start_checkpoint(loaded.recipe)
        loaded = with_carried(with_vocabulary(loaded, shards.vocab_size), start)
        recipe = loaded.recipe
        examples = open_examples(recipe, shards)
        plan = plan_recipe(recipe, source_tokens(shards, recipe, examples))
        return cls(loaded, plan, open_training_data(recipe, plan.timeline, shards, examples), start)


def train(loaded: LoadedRecipe, out: Path, overwrite: bool = False) -> RunResult:
    """Train a recipe in ``out``. A run that is there is continued, or replaced on request.

    Raises UserError for a recipe that does not fit the shards or the run, RunError when the loss is
    not finite. SIGTERM, SIGINT and SIGHUP save a checkpoint and leave with 143, 130 and 129.
    """
    with Distribution.start(loaded.recipe.runtime) as distribution:
        # A function of its own: no model may outlive the distribution.
        return _train(loaded, out, overwrite, distribution)


def _train(
    loaded: LoadedRecipe, out: Path, overwrite: bool, distribution: Distribution
) -> RunResult:
    inputs = Inputs.open(loaded)
    with open_run(inputs.loaded, inputs.plan.timeline, out, overwrite) as run:
        trainer = begin_training(inputs, run, distribution)
        keep_freed_pages()  # not before: what building a model frees is not needed again
        return run.finish(trainer)


def begin_training(inputs: Inputs, run: OpenRun, distribution: Distribution) -> Trainer:
    """Build a trainer and move it to the state of the run."""
    recipe, plan, checkpoint = inputs.loaded.recipe, inputs.plan, run.checkpoint
    timeline, world_size = plan.timeline, distribution.world_size
    noise = None if recipe.noise_scale is None else GradientNoise(recipe.noise_scale, timeline)
    steering = Steering(plan, world_size, checkpoint is not None, noise)
    phase, masks = timeline.phases[0], None
    if checkpoint is not None:
        require_same_data(run.state, inputs.data)
        phase = timeline.phases[run.state["phase"]]
        masks = masks_of_checkpoint(checkpoint, recipe)
    task = language_model(plan, inputs.data, distribution, phase, inputs.start, masks)
    metrics = Metrics(run, distribution)
    trainer = Trainer(
        task,
        task.optimizer(),
        [
            Guards(run),
            *([] if noise is None else [noise]),
            steering,
            Validation(run, HeldOutLoss(task)),
            metrics,
            Checkpoints(run, metrics),
        ],
        course=steering,
        phase=phase,
        folder=run.folder,
        threads=run.choose_threads(distribution),
        seed=recipe.seed,
    )
    run.begin(
        trainer,
        lambda folder: write_files(folder, inputs, task.adaptation),
        lambda: tell_start(inputs, task),
    )
    if checkpoint is None and (choice := task.choose_products()) is not None:
        trainer.event("products", **choice)
    return trainer


class HeldOutLoss:
    """Measures loss and bits per byte of each source on held-out sequences."""

    def __init__(self, task: LanguageModelling) -> None:
        self._task = task
        self._sources: dict[int, list[HeldOutSource]] = {}

    def __call__(self, step: StepPlan) -> dict[str, float]:
        """Measure at the context length of the step's phase."""
        task, length = self._task, step.phase.context_length
        recipe, sequences = task.plan.recipe, task.plan.validation.sequences
        if length not in self._sources:
            self._sources[length] = held_out_sources(
                task.data.shards, recipe.evaluation.holdout, sequences, length, recipe.seed
            )
        return validate(
            task.module,
            self._sources[length],
            task.batches.micro_batch_sequences,
            task.distribution.device,
            task.autocast(),
        )


def require_same_data(state: dict[str, Any], data: TrainingData) -> None:
    """Raise UserError where shards or examples differ from those that the run was trained on."""
    if state["shards"] != data.shards.digest:
        raise UserError(
            "the shards are not those that the run was trained on",
            where=str(data.shards.path),
            do="restore the shards that the run was started with, or choose another --out",
        )
    check_same_examples(state, data.examples)


def write_files(folder: RunFolder, inputs: Inputs, adaptation: dict[str, Any] | None) -> None:
    """Write the recipe, tables of the parametrization, tokenizer, and record of the adaptation."""
    plan = inputs.plan
    keep_tokenizer(inputs.data.shards, folder.path)
    if adaptation is not None:
        folder.write_adaptation(adaptation)
    folder.write_recipe(recipe_text(inputs.loaded))
    folder.write_tables(
        {
            phase.name: effective_table(table, plan.recipe.optimizer_of(phase.index))
            for phase, table in zip(plan.timeline.phases, plan.tables, strict=True)
        }
    )


def tell_start(inputs: Inputs, task: LanguageModelling) -> dict[str, Any]:
    """Print warnings of the plan and the data.

    Returns digests of the weights in ``start_from`` and the census of masks, if there are any.
    """
    plan = inputs.plan
    parent = parent_record(plan.recipe, inputs.start)
    details = {} if parent is None else {"parent": parent}
    if inputs.start is not None and inputs.start.state["shards"] == inputs.data.shards.digest:
        say(
            "warning: start_from: that run was trained on the same shards; this one reads them "
            "from the beginning, not from where that one stopped"
        )
    drift = drift_warnings(plan.recipe, task.precision is torch.bfloat16)
    for warning in (*plan.warnings, *drift):
        say(f"warning: {warning}")
    say(f"the model will be exported as {plan.export_class.description}")
    masks = task.all_masks
    if not masks.tensors:
        return details
    census = take_census(masks, plan.shapes)
    say(
        f"masks keep {census.kept:,} of {census.entries:,} entries of {len(masks.tensors)} "
        f"matrices; {census.dead_units:,} of {census.units:,} units are dead (row and column "
        "masked)"
    )
    return details | {"masks": asdict(census) | {"sha256": digest_of_masks(masks)}}
