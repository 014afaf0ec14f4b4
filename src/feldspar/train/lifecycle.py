"""The life of a run, whatever it trains: begun or resumed, advanced step by step, saved, stopped.

A kind of run (language, images) says what a session is, how it is measured and what a checkpoint
keeps of it; the order of things is here, once.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from feldspar.core.errors import UserError
from feldspar.core.files import empty_folder
from feldspar.core.progress import say
from feldspar.core.records import Mark, append_record
from feldspar.plan.timeline import PhasePlan, StepPlan, Timeline
from feldspar.recipe.load import LoadedRecipe, LoadedVisionRecipe, plain
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.collectives import is_first, on_first
from feldspar.runtime.device import peak_flops, utilisation
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.guards import NonFinitePolicy, SpikeDetector
from feldspar.runtime.live import SpeedMeter, TrainingDisplay
from feldspar.runtime.metrics import MetricsWriter
from feldspar.runtime.run_folder import RunFolder
from feldspar.runtime.signals import GracefulStop
from feldspar.runtime.threads import ThreadChoice, choose_threads
from feldspar.train.intervals import is_due
from feldspar.train.loop import StepResult, StepRunner
from feldspar.train.resume import check_same_past
from feldspar.train.task import Task


@dataclass(frozen=True)
class RunResult:
    """Where a run stands: its folder, position, steps and last validation."""

    folder: Path
    position: int
    steps: int
    metrics: dict[str, float]


class AnySession(Protocol):
    """What a run computes with."""

    @property
    def task(self) -> Task:
        """Hands out micro-batches."""
        ...

    @property
    def runner(self) -> StepRunner:
        """Takes the steps."""
        ...

    @property
    def phase(self) -> PhasePlan:
        """The phase that the session is set up for."""
        ...

    @property
    def precision(self) -> torch.dtype:
        """Type of the products."""
        ...

    @property
    def model_state(self) -> dict[str, torch.Tensor]:
        """Tensors of the model that a checkpoint keeps, by name."""
        ...

    def enter_phase(self, phase: PhasePlan) -> None:
        """Switch to a phase."""
        ...


SessionT = TypeVar("SessionT", bound=AnySession)


class Run(ABC, Generic[SessionT]):
    """A run folder and the timeline that a session advances along."""

    def __init__(
        self,
        loaded: LoadedRecipe | LoadedVisionRecipe,
        timeline: Timeline,
        out: Path,
        distribution: Distribution,
    ) -> None:
        recipe = loaded.recipe
        self.timeline = timeline
        self.distribution = distribution
        self.folder = RunFolder(out, recipe.position_unit)
        keep_every = recipe.checkpoints.keep.every
        self.store = CheckpointStore(
            self.folder.checkpoints,
            recipe.checkpoints,
            None
            if keep_every is None
            else timeline.interval(keep_every, timeline.phases[0], "checkpoints.keep.every"),
        )
        self.policy = NonFinitePolicy(recipe.runtime.on_non_finite, self.folder)
        self.spikes = SpikeDetector()
        self.position = 0
        self.steps_done = 0
        self.metrics: dict[str, float] = {}
        self._loaded = loaded

    @abstractmethod
    def begin(self) -> SessionT:
        """A session at the run's start."""

    @abstractmethod
    def tell_start(self, session: SessionT) -> dict[str, Any]:
        """Say what is worth knowing of a new run; returns details of the event ``started``."""

    @abstractmethod
    def write_files(self) -> None:
        """Write the recipe and what else the folder holds beside records and checkpoints."""

    @abstractmethod
    def reopen(self, checkpoint: Checkpoint, state: dict[str, Any]) -> SessionT:
        """A session with the weights, moments and settings of a checkpoint."""

    @abstractmethod
    def validate(self, session: SessionT, step: StepPlan) -> dict[str, float]:
        """Measure the model on held-out data."""

    @abstractmethod
    def flops(self, step: StepPlan) -> float:
        """Floating-point operations of a step, as shares of the peak count them."""

    @abstractmethod
    def record(self, step: StepPlan, result: StepResult, seconds: float) -> dict[str, Any]:
        """What metrics.jsonl says of a step of this kind of run, beside what it says of all."""

    @abstractmethod
    def state(self, session: SessionT) -> dict[str, Any]:
        """What a checkpoint keeps beside what every run's does."""

    def next_step(self, position: int) -> StepPlan | None:
        """The step that follows at ``position``."""
        return self.timeline.next_step(position)

    def known_next(self, step: StepPlan) -> StepPlan | None:
        """The step after ``step`` where it is known before that one is done."""
        return self.next_step(step.position_after)

    def after_step(self, session: SessionT, step: StepPlan, seconds: float) -> dict[str, Any]:
        """Decide what a step decides; what metrics.jsonl says of it."""
        return {}

    def prepare(self) -> SessionT:
        """The session at the run's newest checkpoint, or at its start."""
        self.store.remove_incomplete()
        on_first(self.folder.remove_incomplete)
        checkpoint = self.store.newest_valid()
        if checkpoint is not None:
            return self._resume(checkpoint)
        session = self.begin()
        # A run that ended before its first checkpoint is begun again, with the same threads.
        session.runner.threads = self._threads(self.folder.recorded_threads())

        def write() -> None:
            self.folder.forget()
            self.write_files()
            self.event("started", **self.tell_start(session))

        on_first(write)
        return session

    def _resume(self, checkpoint: Checkpoint) -> SessionT:
        state = checkpoint.state
        where = str(checkpoint.folder)
        changes = check_same_past(state["recipe"], plain(self._loaded), state["phase"], where)
        session = self.reopen(checkpoint, state)
        session.runner.threads = self._threads(state.get("threads"))
        self.policy.load_state(state["guards"]["non_finite"])
        self.spikes.load_state(state["guards"]["spikes"])
        self.position, self.steps_done = state[self.folder.position_unit], state["step"]
        self.metrics = state["metrics"]

        def write() -> None:
            damage = self.folder.restore(self.steps_done, self.position, state.get("records"))
            self.write_files()
            details = {"damaged_records": asdict(damage)} if damage else {}
            self.event("resumed", changes=changes, **details)

        on_first(write)
        total = f"{self.timeline.length:,} {self.folder.position_unit}"
        say(f"resuming {self.folder.path} at {self.position:,} of {total}")
        return session

    def _threads(self, recorded: int | None) -> ThreadChoice:
        runtime, distribution = self._loaded.recipe.runtime, self.distribution
        return choose_threads(runtime, distribution.device, distribution.world_size, recorded)

    def clear(self) -> None:
        """Forget an earlier run in the folder, its checkpoints first.

        A process that ends within leaves a run that resumes from an older checkpoint, or none.
        Raises the system's error where something cannot be removed.
        """
        self.store.clear()
        empty_folder(self.folder.path / "tensorboard")
        self.folder.clear()

    def advance(self, session: SessionT, stop: GracefulStop) -> None:
        """Take steps until the run ends or a signal asks to stop."""
        threads = session.runner.threads.most
        peak = peak_flops(self.distribution.device, session.precision, threads)
        capacity = peak.per_second * self.distribution.world_size
        writer = MetricsWriter(self.folder, self._loaded.recipe.runtime.trackers)
        display = TrainingDisplay(self.timeline.length, capacity, self.folder.position_unit)
        speed = SpeedMeter()
        with ExitStack() as stack:
            stack.callback(writer.close)
            stack.callback(display.close)
            stack.callback(session.task.close)
            while (step := self.next_step(self.position)) is not None:
                if step.phase.index != session.phase.index:
                    session.enter_phase(step.phase)
                began = time.perf_counter()
                result = self._step(session, step)
                seconds = time.perf_counter() - began
                flops = self.flops(step)
                record: dict[str, Any] = {
                    "phase": step.phase.name,
                    "train/loss": result.loss,
                    "learning_rate": step.learning_rate,
                    "weight_decay": step.weight_decay,
                    "gradient_norm": result.gradient_norm,
                } | utilisation(flops, seconds, capacity)
                record |= self.record(step, result, seconds)
                record |= self.after_step(session, step, seconds)
                if self._due(step, "evaluate"):
                    speed.pause()
                    self.metrics = self.validate(session, step)
                    record |= self.metrics
                writer.write(self.steps_done, self.position, record)
                now = speed.step(step.length, flops)
                display.update(step.phase.name, self.steps_done, self.position, result.loss, now)
                stopping = stop.requested_anywhere()
                if stopping or self._due(step, "checkpoint"):
                    speed.pause()
                    writer.sync()
                    self._save(session, writer.mark())
                if stopping:
                    self.event("stopped")
                    stop.exit()

    def _step(self, session: SessionT, step: StepPlan) -> StepResult:
        upcoming = self.known_next(step)
        if not session.task.prefetched:
            session.task.prefetch(step)
        if upcoming is not None:
            session.task.prefetch(upcoming)
        result = session.runner.run(step)
        self.position, self.steps_done = step.position_after, self.steps_done + 1
        for news in session.runner.threads.take_news():
            self.event("threads", **news)
        if not result.updated:
            names = [f"{step.phase.name}:{step.first_sequence}+{step.sequences}"]
            self.policy.refuse(
                self.steps_done, self.position, names, result.loss, result.gradient_norm
            )
        spike = self.spikes.observe(self.steps_done, result.loss)
        if spike is not None:
            say(f"warning: {spike}")
            self.event("spike", **spike.record())
        return result

    def _due(self, step: StepPlan, what: str) -> bool:
        recipe = self._loaded.recipe
        phase = recipe.phases[step.phase.index]
        if what == "evaluate":
            every, key = phase.evaluate_every or recipe.evaluation.every, "evaluation.every"
        else:
            every, key = phase.checkpoint_every or recipe.checkpoints.every, "checkpoints.every"
        return is_due(step, self.timeline.interval(every, step.phase, key))

    def _save(self, session: SessionT, records: Mark | None) -> None:
        state: dict[str, Any] = {
            "records": None if records is None else records.as_dict(),
            "step": self.steps_done,
            self.folder.position_unit: self.position,
            "phase": session.phase.index,
            "world_size": self.distribution.world_size,
            "threads": session.runner.threads.home,
            "recipe": plain(self._loaded),
            "guards": {"non_finite": self.policy.state(), "spikes": self.spikes.state()},
            "metrics": self.metrics,
        } | self.state(session)
        self.store.save(self.position, session.model_state, session.runner.optimizer.state(), state)
        self.store.prune()

    def event(self, what: str, **details: Any) -> None:
        """Record what happened to the run."""
        if is_first():
            record = {
                "event": what,
                self.folder.position_unit: self.position,
                "step": self.steps_done,
            }
            append_record(self.folder.events, record | details)


def carry_through(make_run: Callable[[], Run[SessionT]], out: Path, overwrite: bool) -> RunResult:
    """Begin or resume the run that ``make_run`` gives, and take it to its end.

    Raises UserError where ``out`` holds something else. SIGTERM, SIGINT and SIGHUP save a
    checkpoint and leave with 143, 130 and 129.
    """
    run = make_run()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())

        def take_folder() -> None:
            check_folder(out)
            stack.enter_context(run.folder.lock())
            if overwrite:
                run.clear()

        on_first(take_folder)
        stop = stack.enter_context(GracefulStop())
        session = run.prepare()
        if run.position >= run.timeline.length:
            say(f"{out} is complete: nothing to do")
        else:
            run.advance(session, stop)
    return RunResult(out, run.position, run.steps_done, run.metrics)


def check_folder(path: Path) -> None:
    """Raise UserError when a folder holds something else than a run."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder")
    folder = RunFolder(path)
    if folder.checkpoints.is_symlink() and not folder.checkpoints.is_dir():
        raise UserError(
            f"{folder.checkpoints} is a link to something that is no folder",
            found=folder.checkpoints.readlink(),
            do="mount or restore what it points to; remove the link to start from the beginning",
        )
    foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if foreign and not folder.holds_run and not folder.is_claimed:
        raise UserError(
            f"{path} holds something else than a run",
            found=", ".join(sorted(foreign)[:5]),
            do="choose another folder with --out",
        )
