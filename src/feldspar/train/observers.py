"""Observers of every run: guards, validation, metrics, checkpoints."""

from collections.abc import Callable
from typing import Any

from feldspar.core.progress import progress, say
from feldspar.core.records import Mark
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import plain
from feldspar.runtime.collectives import is_first
from feldspar.runtime.device import peak_flops, utilisation
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.guards import NonFinitePolicy, SpikeDetector
from feldspar.runtime.live import Shown, SpeedMeter, TrainingDisplay, peak_line
from feldspar.runtime.metrics import MetricsWriter
from feldspar.train.lifecycle import OpenRun
from feldspar.train.trainer import Observer, TakenStep, Trainer


def due_every(run: OpenRun, what: str) -> Callable[[StepPlan], bool]:
    """Return a function that tells at which steps ``what`` (evaluation, checkpoints) is due.

    The interval is the section's ``every``, or that of the phase where it names one.
    """
    recipe, timeline = run.loaded.recipe, run.timeline
    in_phase = {"evaluation": "evaluate_every", "checkpoints": "checkpoint_every"}[what]
    everywhere = getattr(recipe, what).every

    def due(step: StepPlan) -> bool:
        every = getattr(recipe.phases[step.phase.index], in_phase) or everywhere
        return is_due(step, timeline.interval(every, step.phase, f"{what}.every"))

    return due


class Guards(Observer):
    """Ends the run or skips a step that is not finite, and warns of spikes of the loss."""

    def __init__(self, run: OpenRun) -> None:
        self._policy = NonFinitePolicy(run.loaded.recipe.runtime.on_non_finite, run.folder)
        self._spikes = SpikeDetector()

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Check loss and gradient. Raises NonFiniteError where the settings allow no
        further skip.
        """
        if not step.updated:
            plan = step.plan
            names = [f"{plan.phase.name}:{plan.first_sequence}+{plan.sequences}"]
            self._policy.refuse(
                trainer.steps, trainer.position, names, step.loss, step.gradient_norm
            )
        spike = self._spikes.observe(trainer.steps, step.loss)
        if spike is not None:
            say(f"warning: {spike}")
            trainer.event("spike", **spike.record())

    def state(self) -> dict[str, Any]:
        """Return skipped steps and recent losses."""
        return {"guards": {"non_finite": self._policy.state(), "spikes": self._spikes.state()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with skipped steps and recent losses."""
        self._policy.load_state(state["guards"]["non_finite"])
        self._spikes.load_state(state["guards"]["spikes"])


class Validation(Observer):
    """Measures the model on held-out data at the steps where that is due."""

    def __init__(self, run: OpenRun, measure: Callable[[StepPlan], dict[str, float]]) -> None:
        self._due = due_every(run, "evaluation")
        self._measure = measure

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Measure where the step is due."""
        if self._due(step.plan):
            step.interrupted = True
            trainer.metrics = self._measure(step.plan)
            step.record |= trainer.metrics


class Metrics(Observer):
    """Writes a record of each step, sends it to the trackers, and shows the run's progress."""

    def __init__(self, run: OpenRun, distribution: Distribution) -> None:
        self._trackers = run.loaded.recipe.runtime.trackers
        self._total = run.timeline.length
        self._distribution = distribution
        self._speed = SpeedMeter()

    def begin(self, trainer: Trainer) -> None:
        """Open files and display."""
        device = self._distribution.device
        precision = trainer.task.precision
        with progress("measuring the peak speed", unit=""):
            peak = peak_flops(device, precision, trainer.threads.most)
        self._capacity = peak.per_second * self._distribution.world_size
        self._writer = MetricsWriter(trainer.folder, self._trackers)
        self._display = TrainingDisplay(self._total, self._capacity, trainer.folder.position_unit)
        if is_first():
            name = str(precision).removeprefix("torch.")
            say(peak_line(self._capacity, peak.source == "measured", name))
            self._display.begin()

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Write and show the measurements of the step and of earlier observers."""
        if step.interrupted:
            self._speed.pause()
        plan, task = step.plan, trainer.task
        flops = task.flops(plan)
        record: dict[str, Any] = {
            "phase": plan.phase.name,
            "train/loss": step.loss,
            "learning_rate": plan.learning_rate,
            "weight_decay": plan.weight_decay,
            "gradient_norm": step.gradient_norm,
            "step_flops": flops,
        } | utilisation(flops, step.seconds, self._capacity)
        record |= task.record(plan, step.seconds, step.cut_tokens) | step.record
        self._writer.write(trainer.steps, trainer.position, record)
        now = self._speed.step(plan.length, flops)
        if is_first():
            self._display.update(
                Shown(
                    phase=plan.phase.name,
                    step=trainer.steps,
                    position=trainer.position,
                    loss=step.loss,
                    learning_rate=plan.learning_rate,
                    validation_loss=trainer.metrics.get("validation/loss"),
                    speed=now,
                )
            )

    def mark(self) -> Mark | None:
        """Flush the records to the disk, for a checkpoint; return their mark."""
        self._speed.pause()
        self._writer.sync()
        return self._writer.mark()

    def close(self) -> None:
        """Close display and files."""
        self._display.close()
        self._writer.close()


class Checkpoints(Observer):
    """Saves a checkpoint where one is due, and where a signal asks the run to stop."""

    def __init__(self, run: OpenRun, metrics: Metrics) -> None:
        self._due = due_every(run, "checkpoints")
        self._recipe = plain(run.loaded)
        self._store = run.store
        self._stop = run.stop
        self._metrics = metrics

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Save a checkpoint; end the process with the signal's exit code after a signal."""
        stopping = self._stop.requested_anywhere()
        if stopping or self._due(step.plan):
            self._save(trainer)
        if stopping:
            trainer.event("stopped")
            self._stop.exit()

    def _save(self, trainer: Trainer) -> None:
        records = self._metrics.mark()
        state = trainer.state() | {
            "records": None if records is None else records.as_dict(),
            "recipe": self._recipe,
        }
        tensors, moments = trainer.task.tensors(), trainer.optimizer.state()
        with progress("saving a checkpoint", unit=""):
            self._store.save(trainer.position, tensors, moments, state)
            self._store.prune()


def is_due(step: StepPlan, every: int) -> bool:
    """Tell whether a multiple of ``every``, counted from the phase's start, lies in the step."""
    start = step.phase.start_position
    before, after = step.position_before - start, step.position_after - start
    return before // every < after // every or after == step.phase.length
