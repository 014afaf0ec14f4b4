"""A language model's run: from a recipe and its shards to the last checkpoint, resumed exactly."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.loss.validation import HeldOutSource, held_out_sources, validate
from feldspar.plan.flops import flops_per_token
from feldspar.plan.summary import Plan, effective_table, plan_recipe
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.write import recipe_text
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.collectives import on_each
from feldspar.runtime.distributed import Distribution
from feldspar.sparsity.census import take_census
from feldspar.sparsity.saved import digest_of_masks, masks_to_state
from feldspar.train.data import (
    TrainingData,
    open_shards,
    open_training_data,
    source_tokens,
    with_vocabulary,
)
from feldspar.train.lifecycle import Run, RunResult, carry_through
from feldspar.train.load import SCALING_KEY, masks_of_checkpoint
from feldspar.train.loop import StepResult
from feldspar.train.pairs import check_same_pairs, open_pairs, pairs_to_state
from feldspar.train.run_tokenizer import TOKENIZER_KEY, keep_tokenizer, tokenizer_manifest
from feldspar.train.session import Session, build_session
from feldspar.train.start import start_checkpoint, with_carried
from feldspar.train.steering import Steering

ADAPTATION_KEY = "adaptation"
"""Of a checkpoint's state."""


class TrainingRun(Run[Session]):
    """A run of a language model."""

    def __init__(self, loaded: LoadedRecipe, out: Path, distribution: Distribution) -> None:
        shards = open_shards(loaded.recipe)
        self.start = start_checkpoint(loaded.recipe)
        self.loaded = with_carried(with_vocabulary(loaded, shards.vocab_size), self.start)
        recipe = self.loaded.recipe
        pairs = open_pairs(recipe, shards)
        self.plan: Plan = plan_recipe(recipe, source_tokens(shards, recipe, pairs))
        self.data: TrainingData = open_training_data(recipe, self.plan.timeline, shards, pairs)
        super().__init__(self.loaded, self.plan.timeline, out, distribution)
        self._held_out: dict[int, list[HeldOutSource]] = {}
        self._adaptation: dict[str, Any] | None = None
        """The record of what was done to the model that the run began with."""

    def begin(self) -> Session:
        """A session at the run's start."""
        self.steering = Steering(self.plan, self.distribution.world_size, resumed=False)
        first = self.timeline.phases[0]
        session = build_session(self.plan, self.data, self.distribution, first, self.start)
        if session.adaptation is not None:
            self._adaptation = session.adaptation.record()
        return session

    def write_files(self) -> None:
        """Write recipe, tables of the parametrization, tokenizer, and record of the adaptation."""
        keep_tokenizer(self.data.shards, self.folder.path)
        if self._adaptation is not None:
            self.folder.write_adaptation(self._adaptation)
        self.folder.write_recipe(recipe_text(self.loaded))
        phases = zip(self.plan.timeline.phases, self.plan.tables, strict=True)
        optimizer_of = self.plan.recipe.optimizer_of
        self.folder.write_tables(
            {
                phase.name: effective_table(table, optimizer_of(phase.index))
                for phase, table in phases
            }
        )

    def tell_start(self, session: Session) -> dict[str, Any]:
        """Say the plan's warnings; returns the census of masks, if there are any."""
        for warning in self.plan.warnings:
            say(f"warning: {warning}")
        say(f"the model will be exported as {self.plan.export_class.description}")
        masks = session.masks
        if not masks.tensors:
            return {}
        census = take_census(masks, self.plan.shapes)
        say(
            f"masks keep {census.kept:,} of {census.entries:,} entries of {len(masks.tensors)} "
            f"matrices; {census.dead_units:,} of {census.units:,} units are dead (row and column "
            "masked)"
        )
        return {"masks": asdict(census) | {"sha256": digest_of_masks(masks)}}

    def reopen(self, checkpoint: Checkpoint, state: dict[str, Any]) -> Session:
        """A session as the checkpoint left it. Raises UserError where the shards changed."""
        self.steering = Steering(self.plan, self.distribution.world_size, resumed=True)
        self._adaptation = state.get(ADAPTATION_KEY)
        where = str(checkpoint.folder)
        if state["shards"] != self.data.shards.digest:
            raise UserError(
                "the shards changed under the run",
                where=str(self.data.shards.path),
                do="restore the shards that the run was started with, or choose another --out",
            )
        check_same_pairs(state, self.data.pairs)
        session = build_session(
            self.plan,
            self.data,
            self.distribution,
            self.plan.timeline.phases[state["phase"]],
            self.start,
            masks_of_checkpoint(checkpoint, self.loaded.recipe),
        )
        self.store.load(checkpoint, session.model_state, session.runner.optimizer.state())
        on_each(lambda: session.runner.masks.require_zeros(session.model_state, where))
        if self.loaded.recipe.runtime.micro_batch_sequences == "auto":
            same_machines = state["world_size"] == self.distribution.world_size
            if same_machines:
                session.task.micro_batch_sequences = state["micro_batch_sequences"]
            else:
                say("another number of processes: the same data, losses equal up to rounding")
        if session.runner.noise is not None and state["noise_scale"] is not None:
            session.runner.noise.load_state(state["noise_scale"])
        self.steering.load_state(state["steering"])
        return session

    def next_step(self, position: int) -> StepPlan | None:
        """Return the step that begins at ``position``, at the pace decided so far."""
        return self.steering.next_step(position)

    def known_next(self, step: StepPlan) -> StepPlan | None:
        """The step after ``step``; before a decision it is not known how much that one reads."""
        return None if self.steering.due(step) else self.next_step(step.position_after)

    def after_step(self, session: Session, step: StepPlan, seconds: float) -> dict[str, Any]:
        """What the step says of the noise scale, and the decision on the batch where one is due."""
        noise = session.runner.noise
        if noise is None:
            return {}
        record = noise.record(step.sequences)
        self.steering.observe(step, seconds)
        if self.steering.due(step):
            decided = self.steering.decide(step, noise.reading())
            record |= decided
            if decided["batch/action"] != "hold":
                self.event("batch", before=step.sequences, **decided)
        return record

    def flops(self, step: StepPlan) -> float:
        """Forward and backward FLOPs of a step."""
        per_token = flops_per_token(
            self.loaded.recipe.model, self.plan.shapes, step.phase.context_length
        )
        return per_token["6P+attention"] * step.length

    def validate(self, session: Session, step: StepPlan) -> dict[str, float]:
        """Loss and bits per byte of each source on held-out sequences."""
        length = step.phase.context_length
        if length not in self._held_out:
            recipe, sequences = self.loaded.recipe, self.plan.validation.sequences
            self._held_out[length] = held_out_sources(
                self.data.shards, recipe.evaluation.holdout, sequences, length, recipe.seed
            )
        return validate(
            session.task.module,
            self._held_out[length],
            session.task.micro_batch_sequences,
            self.distribution.device,
            session.runner.autocast(),
        )

    def state(self, session: Session) -> dict[str, Any]:
        """Return what a checkpoint keeps of data, tokenizer, batches, masks and adaptation."""
        state: dict[str, Any] = {
            "micro_batch_sequences": session.task.micro_batch_sequences,
            "shards": self.data.shards.digest,
            TOKENIZER_KEY: tokenizer_manifest(self.data.shards).digest,
            ADAPTATION_KEY: self._adaptation,
            "noise_scale": noise.state() if (noise := session.runner.noise) else None,
            "steering": self.steering.state(),
            SCALING_KEY: session.decoder.position_scaling.model_dump(mode="json"),
        }
        return state | masks_to_state(session.masks) | pairs_to_state(self.data.pairs)

    def record(self, step: StepPlan, result: StepResult, seconds: float) -> dict[str, Any]:
        """Sequences and tokens of a step."""
        return {
            "sequences": step.sequences,
            "tokens_per_second": step.length / seconds,
        } | ({"cut_tokens": result.cut_tokens} if result.cut_tokens else {})


def train(loaded: LoadedRecipe, out: Path, overwrite: bool = False) -> RunResult:
    """Train a recipe in ``out``; what is there already is continued, or replaced on request.

    Raises UserError for a recipe that does not fit the shards or the run, RunError when the loss is
    not finite. SIGTERM, SIGINT and SIGHUP save a checkpoint and leave with 143, 130 and 129.
    """
    keep_freed_pages()
    with Distribution.start(loaded.recipe.runtime) as distribution:
        return carry_through(lambda: TrainingRun(loaded, out, distribution), out, overwrite)
