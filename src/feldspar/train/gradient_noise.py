"""Measure the noise scale of a run's own gradients in backward passes; average and log it.

The measured gradient is the sum over the step with masks applied, before clipping.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.calibration import Calibration
from feldspar.noise_scale.control.controller import Reading
from feldspar.noise_scale.control.group_tracker import Groups, GroupTracker, track_groups
from feldspar.noise_scale.control.meter import Estimate, NoiseScaleMeter
from feldspar.noise_scale.control.statistics import StepStatistics
from feldspar.noise_scale.parameter_types import ParameterType
from feldspar.noise_scale.tracker import Tracker, instrument
from feldspar.plan.noise_scale import half_life_tokens
from feldspar.plan.timeline import StepPlan, Timeline
from feldspar.recipe.sections.noise_scale import PAPER_FACTOR, NoiseScaleSettings
from feldspar.runtime.collectives import world_size
from feldspar.sparsity.masks import Masks
from feldspar.train.next_token import SequenceBatches
from feldspar.train.observers import is_due
from feldspar.train.trainer import Observer, TakenStep, Trainer

NAMED_GROUPS = ("total", *get_args(ParameterType))
_GROUPS: dict[str, Groups] = {"microbatch": "microbatches", "ranks": "ranks"}


@dataclass
class _Step:
    """The measurements of one step, and their result."""

    examples: bool
    groups: bool
    by_examples: StepStatistics | None = None
    by_groups: StepStatistics | None = None


class GradientNoise(Observer):
    """An observer that instruments the model of a run and averages the measurements of its steps.

    Every decision about a measurement is the same on each process.
    """

    measures_passes = True

    def __init__(self, settings: NoiseScaleSettings, timeline: Timeline) -> None:
        self._settings = settings
        self._timeline = timeline
        self.half_life_tokens = half_life_tokens(settings, timeline)
        self._every = None
        if settings.every is not None:
            first = timeline.phases[0]
            self._every = timeline.interval(settings.every, first, "noise_scale.every")
        self.meter = NoiseScaleMeter(self.half_life_tokens)
        self._calibration = None
        if settings.calibrate != "none":
            self._calibration = Calibration(self.half_life_tokens)
        self._examples: Tracker | None = None
        self._groups: GroupTracker | None = None
        self._masks = Masks()
        self._step = _Step(examples=False, groups=False)

    @property
    def _group_kind(self) -> Literal["microbatch", "ranks"] | None:
        """The groups to compare, as the estimator or for the calibration."""
        if self._settings.estimator != "per_example":
            return self._settings.estimator
        return None if self._settings.calibrate == "none" else self._settings.calibrate

    def enter_phase(self, trainer: Trainer) -> None:
        """Instrument the model as the phase trains it. Raises UserError where that is
        impossible.
        """
        phase, task = trainer.phase, trainer.task
        assert isinstance(task.batches, SequenceBatches), "images have no noise scale"
        first = self._timeline.next_step(phase.start_position)
        assert first is not None, "a phase has at least one step"
        self._masks = task.masks
        self.attach(task.model, task.masks.tensors)
        self.require_groups(first, task.batches.micro_batch_sequences)

    def attach(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Instrument ``model``, again after each change of its trained parameters or masks.

        Raises UserError for a model that cannot be measured.
        """
        self.detach()
        if self._settings.estimator == "per_example":
            whole = self._settings.coverage == "all"
            self._examples = instrument(
                model, self._settings.coverage, masks=masks if whole else None, shared=()
            )
        if self._group_kind is not None:
            self._groups = track_groups(model, _GROUPS[self._group_kind], masks)

    def see_update(self, trainer: Trainer) -> None:
        """Measure by the masks that the step has moved."""
        if trainer.task.masks is not self._masks:
            self._masks = trainer.task.masks
            for tracker in (self._examples, self._groups):
                if tracker is not None:
                    tracker.follow_masks(self._masks.tensors)

    def detach(self) -> None:
        """Remove the instruments from the model."""
        for tracker in (self._examples, self._groups):
            if tracker is not None:
                tracker.remove()
        self._examples = self._groups = None

    def require_groups(self, step: StepPlan, micro_batch_sequences: int) -> None:
        """Raise UserError where the first step of a phase has no groups to compare."""
        sizes = [micro_batch_sequences] * (step.sequences // world_size() // micro_batch_sequences)
        kind = self._settings.estimator
        if kind == "per_example" or self._has_groups(sizes or [step.sequences]):
            return
        raise UserError(
            f"noise_scale.estimator: {kind} compares at least two of them, but a step of phase "
            f"{step.phase.name} has one",
            found=f"{step.sequences} sequences in micro-batches of {micro_batch_sequences} on "
            f"{world_size()} processes",
            do="set runtime.micro_batch_sequences to at most half of a process's share, or "
            "noise_scale.estimator=per_example",
        )

    def begin_step(self, plan: StepPlan, sizes: Sequence[int]) -> None:
        """Decide which measurements the step makes."""
        due = plan.sequences > 1 and (self._every is None or is_due(plan, self._every))
        self._step = _Step(due and self._examples is not None, due and self._has_groups(sizes))

    @contextmanager
    def micro_batch(self, size: int) -> Generator[None]:
        """Measure in forward and backward pass of a micro-batch of ``size`` sequences."""
        with ExitStack() as stack:
            if self._step.examples and self._examples is not None:
                stack.enter_context(self._examples.microbatch())
            if self._step.groups and self._groups is not None:
                stack.enter_context(self._groups.microbatch(size))
            yield

    def see_gradients(self, plan: StepPlan, finite: bool) -> None:
        """Add a step whose gradients are complete. A step that is not finite is ignored."""
        now = self._step
        if now.examples and self._examples is not None:
            now.by_examples = self._examples.finish(plan.sequences)
        if now.groups and self._groups is not None:
            now.by_groups = self._groups.finish(plan.sequences)
        if not finite:
            now.by_examples = now.by_groups = None
        tokens = plan.length
        self.meter.update(self._measured, tokens)
        if self._calibration is not None:
            self._calibration.update(now.by_examples, now.by_groups, tokens)

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Add the noise scale to the step's record."""
        step.record |= self.record(step.plan.sequences)

    @property
    def _measured(self) -> StepStatistics | None:
        by_examples = self._settings.estimator == "per_example"
        return self._step.by_examples if by_examples else self._step.by_groups

    @property
    def _measures_all(self) -> bool:
        """True if the total is measured and not derived from the norm layers."""
        return self._settings.coverage == "all" or self._settings.estimator != "per_example"

    def _has_groups(self, sizes: Sequence[int]) -> bool:
        """Tell whether all processes together hold two groups or more of one size."""
        by_rank = self._group_kind == "ranks"
        n_groups = world_size() * (1 if by_rank else len(sizes))
        return self._group_kind is not None and n_groups > 1 and len({*sizes}) == 1

    @property
    def factor(self) -> float:
        """Return the factor from the noise scale of the norm layers to that of the model."""
        return PAPER_FACTOR if self._calibration is None else self._calibration.factor

    def total(self) -> Estimate:
        """Return the model's noise scale in sequences, by measurement or from its norm layers."""
        if self._measures_all:
            return self.meter.estimate("total")
        norm, factor = self.meter.estimate("norm"), self.factor
        return replace(
            norm, value=factor * norm.value, low=factor * norm.low, high=factor * norm.high
        )

    def reading(self) -> Reading:
        """Return the total in the form that the batch's controller reads."""
        total = self.total()
        return Reading(total.value, total.low, total.high)

    def record(self, sequences: int) -> dict[str, Any]:
        """Return the noise figures of metrics.jsonl after a step of so many sequences."""
        record: dict[str, Any] = {}
        known = [name for name in NAMED_GROUPS if name in self.meter.groups]
        estimates = {name: self.meter.estimate(name) for name in known}
        estimates["total"] = total = self.total()
        for name, estimate in estimates.items():
            key = f"noise_scale/{name}"
            record |= {
                key: estimate.value,
                f"{key}/low": estimate.low,
                f"{key}/high": estimate.high,
                f"{key}/status": estimate.status,
            }
            moments = None if self._measured is None else self._measured.get(name)
            if moments is not None:
                record |= {f"{key}/noise": moments.noise, f"{key}/signal_sq": moments.signal_sq}
        groups = self._step.by_groups
        if self._calibration is not None and groups is not None:
            moments = groups["total"]
            record |= {
                "noise_scale/total/noise": moments.noise,
                "noise_scale/total/signal_sq": moments.signal_sq,
            }
        if not self._measures_all:
            record["noise_scale/factor"] = self.factor
        record["noise_scale/tokens"] = total.value_tokens
        record["noise_scale/token_overhead"] = (
            sequences / total.value if total.value > 0 else math.nan
        )
        return record

    def state(self) -> dict[str, Any]:
        """Return the averages and a description of their measurement."""
        calibration = self._calibration
        kept = {
            "settings": self._settings.model_dump(mode="json"),
            "meter": self.meter.state(),
            "calibration": None if calibration is None else calibration.state(),
        }
        return {"noise_scale": kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint. Averages of other measurements are dropped."""
        kept = state["noise_scale"]
        if kept is None:
            return
        settings = self._settings.model_dump(mode="json")
        same = all(
            kept["settings"][key] == settings[key] for key in ("estimator", "coverage", "calibrate")
        )
        if not same:
            return
        self.meter.load_state(kept["meter"])
        if self._calibration is not None:
            self._calibration.load_state(kept["calibration"])
