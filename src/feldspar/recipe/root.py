"""The recipe of a language model, and the checks that concern more than one section."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from feldspar.recipe.amounts import Unit
from feldspar.recipe.base import NameOrMapping
from feldspar.recipe.sections.adapt import AdaptSettings
from feldspar.recipe.sections.corpus import CorpusSettings
from feldspar.recipe.sections.evaluation import EvaluationSettings
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import LearnedPositions, ModelSettings
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch, NoiseScaleSettings
from feldspar.recipe.sections.optimizer import LanguageOptimizer, OptimizerSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.phases import MixtureEntry, PhaseSettings, RunSchedule
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling, scaling_misfit
from feldspar.recipe.sections.runtime import (
    CheckpointSettings,
    FsdpDistribution,
    RuntimeSettings,
)
from feldspar.recipe.sections.sparsity import (
    AnySparsity,
    Dense,
    GradualSparsity,
    without_moves,
)
from feldspar.recipe.sections.start_from import StartFrom, StartFromScratch
from feldspar.recipe.sections.study import StudySettings
from feldspar.recipe.sections.tokens import ShardSettings, Tokenizer
from feldspar.recipe.top import RecipeTop, refuse_units

SCHEMA_VERSION = 1


class Recipe(RecipeTop):
    """A run of a language model: data, model, hyper-parameters, phases."""

    position_unit = "tokens"

    start_from: Annotated[StartFrom, Field(discriminator="type"), NameOrMapping] = (
        StartFromScratch()
    )
    """Weights that the first phase starts with."""
    adapt: AdaptSettings | None = None
    """Change of the vocabulary between start_from and the first phase."""
    corpus: CorpusSettings | None = None
    """Sources, cleaning, deduplication and split of documents; may be absent when shards exist."""
    tokenizer: Tokenizer | None = None
    """Tokenizer that turns text into tokens; may be absent when shards exist."""
    shards: ShardSettings | None = None
    """Shards that `tokens build` writes and training reads."""
    model: ModelSettings
    """Shape of the decoder."""
    parametrization: ParametrizationSettings
    """Initial values, learning rates and multipliers."""
    optimizer: LanguageOptimizer = OptimizerSettings()
    """The optimizer, which turns gradients into updates; AdamW where no type is given."""
    schedule: RunSchedule = RunSchedule()
    """Schedules over the run, as fractions of the peak."""
    phases: Annotated[tuple[PhaseSettings, ...], Field(min_length=1)]
    """The run, phase by phase."""
    noise_scale: NoiseScaleSettings | None = None
    """Measure the gradient noise scale; batches of type noise_scale need it."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When checkpoints are written and which are kept."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Validation and evaluation."""
    study: StudySettings | None = None
    """Settings of studies: many runs of this recipe with different values."""
    runtime: RuntimeSettings = RuntimeSettings()
    """Device, precision, micro-batches and distribution; they never change the mathematics."""

    @property
    def infilling_scopes(self) -> frozenset[str]:
        """Scopes of the phases' fill-in-the-middle; empty where no phase uses it."""
        return frozenset(how.scope for phase in self.phases for how in phase.infillings.values())

    @property
    def context_lengths(self) -> tuple[int, ...]:
        """Context length of each phase, in tokens."""
        return tuple(map(self.context_length, self.phases))

    def context_length(self, phase: PhaseSettings) -> int:
        """Return the tokens of one sequence of ``phase``."""
        return phase.context_length or self.model.max_sequence_length

    def vocabulary_rows(self, tokens: int) -> int:
        """Return the rows of the vocabulary for a number of tokens, if model.vocab_size is not
        given."""
        multiple = 1 if self.adapt is None else self.adapt.pad_rows_to
        return -(-tokens // multiple) * multiple

    def sparsity(self, phase_index: int) -> AnySparsity:
        """Return the sparsity of a phase: its own, else that of the phase before it.

        Masks that a phase inherits do not move. The first phase without its own is dense, or static
        as model.sparse_iso_flop says.
        """
        own = self.phases[phase_index].sparsity
        if own is not None:
            return own
        if phase_index:
            return without_moves(self.sparsity(phase_index - 1))
        return Dense() if self.model.sparse_iso_flop is None else self.model.sparse_iso_flop.masks

    def position_scaling(self, phase_index: int) -> PositionScaling:
        """Return the position scaling of a phase: its own, else that of the phase before it, else
        none."""
        phases = self.phases[: phase_index + 1]
        given = [phase.position_scaling for phase in phases if phase.position_scaling]
        return given[-1] if given else NoScaling()

    @property
    def soft_prompt_length(self) -> int:
        """Number of vectors of the run's soft prompt; 0: there is none."""
        return max(phase.soft_prompt_length for phase in self.phases)

    @property
    def lora(self) -> LoraSettings | None:
        """Settings of the low-rank updates of all phases that have them; None: no phase has."""
        return next((phase.lora for phase in self.phases if phase.lora), None)

    def optimizer_of(self, phase_index: int) -> LanguageOptimizer:
        """Return the optimizer of a phase: the section ``optimizer`` with the phase's changes."""
        own = self.phases[phase_index].optimizer
        changes = {} if own is None else own.model_dump(exclude_none=True)
        return self.optimizer.model_copy(update=changes)

    @model_validator(mode="before")
    @classmethod
    def _reversible_by_default(cls, value: Any) -> Any:
        """Let a reversible model rebuild its activations where the recipe names no other way."""
        if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
            return value
        runtime = value.get("runtime", {})
        if not value["model"].get("reversible") or not isinstance(runtime, dict):
            return value
        return value | {"runtime": {"activation_memory": "reversible"} | runtime}

    @model_validator(mode="after")
    def _activations_fit_the_model(self) -> Self:
        reversible = self.model.reversible is not None
        if self.runtime.activation_memory == "reversible" and not reversible:
            raise ValueError(
                "runtime.activation_memory: reversible needs a reversible model; set "
                "model.reversible: true, or activation_memory: recompute"
            )
        if reversible and isinstance(self.runtime.distribution, FsdpDistribution):
            raise ValueError(
                "runtime.distribution: fsdp gathers weights for one pass through a block, but the "
                "backward pass of a reversible model runs blocks again; set distribution: ddp, or "
                "model.reversible: false"
            )
        return self

    @model_validator(mode="after")
    def _one_soft_prompt(self) -> Self:
        lengths = {phase.soft_prompt_length for phase in self.phases} - {0}
        if len(lengths) > 1:
            raise ValueError(
                "phases: all phases share one soft prompt, but they ask for "
                f"{min(lengths)} and {max(lengths)} vectors; give them one length"
            )
        for index, phase in enumerate(self.phases):
            if phase.examples is not None and self.noise_scale is not None:
                raise ValueError(
                    f"noise_scale: it cannot be measured on {phase.examples.type}, which "
                    f"phases.{index} reads; remove it"
                )
            if phase.soft_prompt_length >= self.context_length(phase):
                raise ValueError(
                    f"phases.{index}.soft_prompt: {phase.soft_prompt_length} vectors leave no room "
                    f"in a context of {self.context_length(phase)} tokens"
                )
        return self

    @model_validator(mode="after")
    def _one_lora(self) -> Self:
        for index, phase in enumerate(self.phases):
            if phase.lora not in (None, self.lora):
                raise ValueError(
                    f"phases.{index}.lora: all phases that have lora share its settings, but this "
                    "phase has others; give them the same, or continue in a run of its own with "
                    "start_from"
                )
        return self

    @model_validator(mode="after")
    def _other_optimizers_start_anew(self) -> Self:
        for index in range(1, len(self.phases)):
            changed = self.optimizer_of(index) != self.optimizer_of(index - 1)
            if changed and self.phases[index].optimizer_state != "fresh":
                raise ValueError(
                    f"phases.{index}.optimizer_state: the optimizer differs from that of "
                    "the phase before, so old moments do not fit; set optimizer_state: "
                    "fresh"
                )
        return self

    @model_validator(mode="after")
    def _counts_tokens(self) -> Self:
        refuse_units(self, {Unit.IMAGES})
        return self

    @model_validator(mode="after")
    def _scalings_fit_the_positions(self) -> Self:
        for index, phase in enumerate(self.phases):
            scaling = phase.position_scaling
            misfit = None if scaling is None else scaling_misfit(scaling, self.model)
            if misfit is not None:
                raise ValueError(f"phases.{index}.position_scaling: {misfit}")
        sweep = self.evaluation.length_sweep
        for index, scaling in enumerate(() if sweep is None else sweep.scalings):
            misfit = scaling_misfit(scaling, self.model)
            if misfit is not None:
                raise ValueError(f"evaluation.length_sweep.scalings.{index}: {misfit}")
        return self

    @model_validator(mode="after")
    def _phases_fit_the_model(self) -> Self:
        for index, phase in enumerate(self.phases):
            context = self.context_length(phase)
            limit = self.model.max_sequence_length
            if isinstance(self.model.positions, LearnedPositions) and context > limit:
                raise ValueError(
                    f"phases.{index}.context_length: {context} tokens are more than "
                    f"model.max_sequence_length, which gives {limit} learned positions"
                )
            if index > 0 and phase.optimizer_state is None and _warms_up(phase):
                raise ValueError(
                    f"phases.{index}.optimizer_state: this phase warms up again; set it "
                    "to keep or fresh"
                )
        names = [phase.name for phase in self.phases]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"phases: two phases are named {doubled!r}; give each its own name")
        return self

    @model_validator(mode="after")
    def _adaptation_fits(self) -> Self:
        if self.adapt is None:
            return self
        if isinstance(self.start_from, StartFromScratch):
            raise ValueError(
                "adapt: it needs a model to adapt; let start_from name a run or a folder"
            )
        if self.adapt.embeddings.match_norm and self.model.tied_embeddings:
            raise ValueError(
                "adapt.embeddings.match_norm: the head is tied to the embedding, and longer rows "
                "there raise the logits of new tokens above those of old ones (measured with "
                "SmolLM2-135M: 5.4 bits per byte instead of 1.8); remove it, or untie the head"
            )
        rows, multiple = self.model.vocab_size, self.adapt.pad_rows_to
        if rows is not None and rows % multiple:
            raise ValueError(
                f"adapt.pad_rows_to: model.vocab_size {rows} is not a multiple of {multiple}"
            )
        return self

    @model_validator(mode="after")
    def _moments_fit_the_trained_rows(self) -> Self:
        for index in range(1, len(self.phases)):
            before, now = self.phases[index - 1], self.phases[index]
            changes = before.trains_new_rows_only != now.trains_new_rows_only
            if changes and now.optimizer_state != "fresh":
                raise ValueError(
                    f"phases.{index}.optimizer_state: this phase trains different rows "
                    "than the one before; set optimizer_state: fresh"
                )
        return self

    @model_validator(mode="after")
    def _masks_stay_or_are_dropped(self) -> Self:
        for index in range(1, len(self.phases)):
            before, now = self.sparsity(index - 1), self.sparsity(index)
            if without_moves(now) == without_moves(before):
                continue
            if isinstance(now, GradualSparsity) and before == Dense():
                if now.initial_sparsity:
                    raise ValueError(
                        f"phases.{index}.sparsity.initial_sparsity: the phase before is dense; "
                        "remove this key, or set it to 0"
                    )
                continue
            if now != Dense():
                raise ValueError(
                    f"phases.{index}.sparsity: a later phase can only keep the matrices, counts "
                    "and seed of the phase before, prune a dense phase with type: gradual, or set "
                    "sparsity: dense"
                )
            if self.phases[index].optimizer_state != "fresh":
                # With old step counts, the first update of a revived entry is scaled by
                # (1 - beta1) / sqrt(1 - beta2).
                raise ValueError(
                    f"phases.{index}.optimizer_state: this phase drops the masks; set "
                    "optimizer_state: fresh"
                )
        return self

    @model_validator(mode="after")
    def _masks_fit_the_iso_flop_model(self) -> Self:
        member, first = self.model.sparse_iso_flop, self.sparsity(0)
        goes_on = not isinstance(self.start_from, StartFromScratch)
        if member is None or (goes_on and first == Dense()):
            return self
        misfit = member.misfit(first)
        if misfit is not None:
            raise ValueError(f"phases.0.{misfit}")
        return self

    @model_validator(mode="after")
    def _lora_finds_its_matrices(self) -> Self:
        member = self.model.sparse_iso_flop
        if self.lora is not None and member is not None and member.type != "wide":
            raise ValueError(
                "phases: lora updates single matrices, and model.sparse_iso_flop of type "
                f"{member.type} has several in the place of each; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _steered_batches_can_be(self) -> Self:
        for index, phase in enumerate(self.phases):
            if not isinstance(phase.batch, NoiseScaleBatch):
                continue
            if self.noise_scale is None:
                raise ValueError(
                    f"phases.{index}.batch: a batch of type noise_scale needs a measured "
                    "noise scale; add noise_scale: {}"
                )
            if phase.length.unit is Unit.STEPS:
                raise ValueError(
                    f"phases.{index}.length: the number of steps is not known in advance "
                    "when the batch follows the noise scale; give the length in tokens"
                )
        return self

    @model_validator(mode="after")
    def _mixtures_fit(self) -> Self:
        for index, phase in enumerate(self.phases):
            if phase.mixture == "natural":
                continue
            shares = [
                entry.probability if isinstance(entry, MixtureEntry) else entry
                for entry in phase.mixture.values()
            ]
            known = [share for share in shares if share is not None]
            total = sum(known)
            key = f"phases.{index}.mixture"
            if len(known) == len(shares) and total == 0:
                raise ValueError(f"{key}: every probability is 0")
            if not phase.normalize_mixture and len(known) == len(shares) and abs(total - 1) > 1e-6:
                raise ValueError(
                    f"{key}: the probabilities sum to {total:.6g}, not 1 (phase {phase.name}: "
                    f"{_told(phase.mixture, shares)}); correct them or set "
                    "normalize_mixture: true"
                )
        return self


def _told(sources: Iterable[str], shares: Iterable[float | None]) -> str:
    pairs = zip(sources, shares, strict=True)
    return ", ".join(f"{name} {share:g}" for name, share in pairs if share is not None)


def _warms_up(phase: PhaseSettings) -> bool:
    if phase.learning_rate is None:
        return False
    first = phase.learning_rate.segments[0]
    return first.shape in ("linear", "cosine") and (first.from_ or 0.0) < (first.to or 0.0)
