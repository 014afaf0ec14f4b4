"""A whole run: from a recipe and its shards to the last checkpoint, resumed wherever it stopped."""

import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feldspar.adapt.embeddings import Adaptation
from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.validation import HeldOutSource, held_out_sources, validate
from feldspar.plan.flops import flops_per_token
from feldspar.plan.summary import Plan, effective_table, plan_recipe
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.write import recipe_text
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.collectives import is_first, on_each, on_first
from feldspar.runtime.device import peak_flops
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.guards import NonFinitePolicy, SpikeDetector
from feldspar.runtime.live import SpeedMeter, TrainingDisplay
from feldspar.runtime.metrics import MetricsWriter
from feldspar.runtime.run_folder import RunFolder, append_record
from feldspar.runtime.signals import GracefulStop
from feldspar.sparsity.census import take_census
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import digest_of_masks, masks_to_state
from feldspar.train.data import (
    TrainingData,
    open_shards,
    open_training_data,
    source_tokens,
    with_vocabulary,
)
from feldspar.train.intervals import is_due
from feldspar.train.load import SCALING_KEY, TOKENIZER_FOLDER, masks_of_checkpoint
from feldspar.train.loop import StepResult
from feldspar.train.pairs import check_same_pairs, open_pairs, pairs_to_state
from feldspar.train.resume import check_same_past, plain
from feldspar.train.session import Session, build_session
from feldspar.train.start import start_checkpoint, with_carried
from feldspar.train.steering import Steering


@dataclass(frozen=True)
class RunResult:
    """Where a run stands: its folder, tokens and steps done, and the last validation."""

    folder: Path
    tokens: int
    steps: int
    metrics: dict[str, float]


class TrainingRun:
    """A run folder and the session that advances it."""

    def __init__(self, loaded: LoadedRecipe, out: Path, distribution: Distribution) -> None:
        shards = open_shards(loaded.recipe)
        self.start = start_checkpoint(loaded.recipe)
        self.loaded = with_carried(with_vocabulary(loaded, shards.vocab_size), self.start)
        recipe = self.loaded.recipe
        pairs = open_pairs(recipe, shards)
        self.plan: Plan = plan_recipe(recipe, source_tokens(shards, recipe, pairs))
        self.data: TrainingData = open_training_data(recipe, self.plan.timeline, shards, pairs)
        self.distribution = distribution
        self.folder = RunFolder(out)
        keep_every = recipe.checkpoints.keep.every
        timeline = self.plan.timeline
        self.store = CheckpointStore(
            self.folder.checkpoints,
            recipe.checkpoints,
            None
            if keep_every is None
            else timeline.interval_tokens(keep_every, timeline.phases[0], "checkpoints.keep.every"),
        )
        self.policy = NonFinitePolicy(recipe.runtime.on_non_finite, self.folder)
        self.spikes = SpikeDetector()
        self.tokens = 0
        self.steps_done = 0
        self.metrics: dict[str, float] = {}
        self._held_out: dict[int, list[HeldOutSource]] = {}

    def prepare(self) -> Session:
        """The session at the run's newest checkpoint, or at its start."""
        self.store.remove_incomplete()
        checkpoint = self.store.newest_valid()
        world_size = self.distribution.world_size
        self.steering = Steering(self.plan, world_size, resumed=checkpoint is not None)
        timeline = self.plan.timeline
        if checkpoint is None:
            session = build_session(
                self.plan, self.data, self.distribution, timeline.phases[0], self.start
            )
            on_first(lambda: self._write_start(session.masks, session.adaptation))
            return session
        return self._resume(checkpoint)

    def _write_recipe(self) -> None:
        self.folder.write_recipe(recipe_text(self.loaded))
        phases = zip(self.plan.timeline.phases, self.plan.tables, strict=True)
        optimizer_of = self.plan.recipe.optimizer_of
        self.folder.write_tables(
            {
                phase.name: effective_table(table, optimizer_of(phase.index))
                for phase, table in phases
            }
        )

    def _write_start(self, masks: Masks, adaptation: Adaptation | None) -> None:
        self._write_recipe()
        if adaptation is not None:
            self.folder.write_adaptation(adaptation.record())
        shutil.copytree(
            self.data.shards.tokenizer, self.folder.path / TOKENIZER_FOLDER, dirs_exist_ok=True
        )
        self.folder.forget_after(0)
        for warning in self.plan.warnings:
            say(f"warning: {warning}")
        if not masks.tensors:
            self._event("started")
            return
        census = take_census(masks, self.plan.shapes)
        say(
            f"masks keep {census.kept:,} of {census.entries:,} entries of {len(masks.tensors)} "
            f"matrices; {census.dead_units:,} of {census.units:,} units are dead (row and column "
            "masked)"
        )
        self._event("started", masks=asdict(census) | {"sha256": digest_of_masks(masks)})

    def _resume(self, checkpoint: Checkpoint) -> Session:
        state = checkpoint.state
        where = str(checkpoint.folder)
        changes = check_same_past(state["recipe"], plain(self.loaded), state["phase"], where)
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
        self.policy.load_state(state["guards"]["non_finite"])
        self.spikes.load_state(state["guards"]["spikes"])
        self.tokens, self.steps_done = state["tokens"], state["step"]
        self.metrics = state["metrics"]
        self._record_resume(changes)
        total = self.plan.timeline.tokens
        say(f"resuming {self.folder.path} at {self.tokens:,} of {total:,} tokens")
        return session

    def _record_resume(self, changes: list[str]) -> None:
        def write() -> None:
            self.folder.forget_after(self.tokens)
            if changes:
                self._write_recipe()
            self._event("resumed", changes=changes)

        on_first(write)

    def advance(self, session: Session, stop: GracefulStop) -> None:
        """Take steps until the run ends or a signal asks to stop."""
        recipe, timeline = self.loaded.recipe, self.plan.timeline
        peak = peak_flops(self.distribution.device, session.precision)
        capacity = peak.per_second * self.distribution.world_size
        writer = MetricsWriter(self.folder, recipe.runtime.trackers)
        display = TrainingDisplay(timeline.tokens, capacity)
        speed = SpeedMeter()
        with ExitStack() as stack:
            stack.callback(writer.close)
            stack.callback(display.close)
            stack.callback(session.task.close)
            while (step := self.steering.next_step(self.tokens)) is not None:
                if step.phase.index != session.phase.index:
                    session.enter_phase(step.phase)
                began = time.perf_counter()
                result = self._step(session, step)
                seconds = time.perf_counter() - began
                flops = self._flops(step)
                record = step_record(step, result, seconds, flops / seconds / capacity)
                record |= self._noise(session, step, seconds)
                if self._due(step, "evaluate"):
                    speed.pause()
                    self.metrics = self._validate(session, step)
                    record |= self.metrics
                writer.write(self.steps_done, self.tokens, record)
                now = speed.step(step.tokens_after - step.tokens_before, flops)
                display.update(step.phase.name, self.steps_done, self.tokens, result.loss, now)
                stopping = stop.requested_anywhere()
                if stopping or self._due(step, "checkpoint"):
                    speed.pause()
                    writer.sync()
                    self._save(session)
                if stopping:
                    self._event("stopped")
                    stop.exit()

    def _step(self, session: Session, step: StepPlan) -> StepResult:
        # Before a decision it is not known how much the next step reads.
        upcoming = None if self.steering.due(step) else self.steering.next_step(step.tokens_after)
        if not session.task.prefetched:
            session.task.prefetch(step)
        if upcoming is not None:
            session.task.prefetch(upcoming)
        result = session.runner.run(step)
        self.tokens, self.steps_done = step.tokens_after, self.steps_done + 1
        if not result.updated:
            names = [f"{step.phase.name}:{step.first_sequence}+{step.sequences}"]
            self.policy.refuse(
                self.steps_done, self.tokens, names, result.loss, result.gradient_norm
            )
        spike = self.spikes.observe(self.steps_done, result.loss)
        if spike is not None:
            say(f"warning: {spike}")
            self._event("spike", **spike.record())
        return result

    def _noise(self, session: Session, step: StepPlan, seconds: float) -> dict[str, Any]:
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
                self._event("batch", before=step.sequences, **decided)
        return record

    def _flops(self, step: StepPlan) -> float:
        per_token = flops_per_token(
            self.loaded.recipe.model, self.plan.shapes, step.phase.context_length
        )
        return per_token["6P+attention"] * (step.tokens_after - step.tokens_before)

    def _due(self, step: StepPlan, what: str) -> bool:
        recipe = self.loaded.recipe
        phase = recipe.phases[step.phase.index]
        if what == "evaluate":
            every, key = phase.evaluate_every or recipe.evaluation.every, "evaluation.every"
        else:
            every, key = phase.checkpoint_every or recipe.checkpoints.every, "checkpoints.every"
        return is_due(step, self.plan.timeline.interval_tokens(every, step.phase, key))

    def _validate(self, session: Session, step: StepPlan) -> dict[str, float]:
        length = step.phase.context_length
        if length not in self._held_out:
            recipe = self.loaded.recipe
            self._held_out[length] = held_out_sources(
                self.data.shards, recipe.evaluation, length, recipe.seed
            )
        return validate(
            session.task.module,
            self._held_out[length],
            session.task.micro_batch_sequences,
            self.distribution.device,
            session.runner.autocast(),
        )

    def _save(self, session: Session) -> None:
        state: dict[str, Any] = {
            "step": self.steps_done,
            "tokens": self.tokens,
            "phase": session.phase.index,
            "world_size": self.distribution.world_size,
            "micro_batch_sequences": session.task.micro_batch_sequences,
            "shards": self.data.shards.digest,
            "recipe": plain(self.loaded),
            "guards": {"non_finite": self.policy.state(), "spikes": self.spikes.state()},
            "metrics": self.metrics,
            "noise_scale": noise.state() if (noise := session.runner.noise) else None,
            "steering": self.steering.state(),
            SCALING_KEY: session.decoder.position_scaling.model_dump(mode="json"),
        }
        state |= masks_to_state(session.masks) | pairs_to_state(self.data.pairs)
        self.store.save(self.tokens, session.model_state, session.runner.optimizer.state(), state)
        self.store.prune()

    def _event(self, what: str, **details: Any) -> None:
        if is_first():
            record = {"event": what, "tokens": self.tokens, "step": self.steps_done}
            append_record(self.folder.events, record | details)


def step_record(
    step: StepPlan, result: StepResult, seconds: float, utilisation: float
) -> dict[str, Any]:
    """What metrics.jsonl says of a step, beside its number and tokens."""
    return {
        "phase": step.phase.name,
        "train/loss": result.loss,
        "learning_rate": step.learning_rate,
        "weight_decay": step.weight_decay,
        "gradient_norm": result.gradient_norm,
        "sequences": step.sequences,
        "tokens_per_second": (step.tokens_after - step.tokens_before) / seconds,
        "model_flop_utilisation": utilisation,
    } | ({"cut_tokens": result.cut_tokens} if result.cut_tokens else {})


def train(loaded: LoadedRecipe, out: Path, overwrite: bool = False) -> RunResult:
    """Train a recipe in ``out``; what is there already is continued, or replaced on request.

    Raises UserError for a recipe that does not fit the shards or the run, RunError when the loss is
    not finite. SIGTERM and SIGINT save a checkpoint and leave with 143 and 130.
    """
    keep_freed_pages()
    with Distribution.start(loaded.recipe.runtime) as distribution:
        return _train(loaded, out, overwrite, distribution)


def _train(
    loaded: LoadedRecipe, out: Path, overwrite: bool, distribution: Distribution
) -> RunResult:
    run = TrainingRun(loaded, out, distribution)
    with ExitStack() as stack:

        def take_folder() -> None:
            check_folder(out)
            stack.enter_context(run.folder.lock())
            if overwrite:
                clear(run.folder)

        on_first(take_folder)
        stop = stack.enter_context(GracefulStop())
        session = run.prepare()
        if run.tokens >= run.plan.timeline.tokens:
            say(f"{out} is complete: nothing to do")
        else:
            run.advance(session, stop)
    return RunResult(out, run.tokens, run.steps_done, run.metrics)


def check_folder(path: Path) -> None:
    """Raise UserError when a folder holds something else than a run."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder")
    foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if foreign and RunFolder(path).read_recipe() is None:
        raise UserError(
            f"{path} holds something else than a run",
            found=", ".join(sorted(foreign)[:5]),
            do="choose another folder with --out",
        )


def clear(folder: RunFolder) -> None:
    """Forget an earlier run in the folder."""
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    shutil.rmtree(folder.path / "tensorboard", ignore_errors=True)
    for path in (folder.metrics, folder.events, folder.bad_batches, folder.adaptation):
        path.unlink(missing_ok=True)
