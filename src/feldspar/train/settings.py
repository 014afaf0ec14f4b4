"""Phases, their batches and mixtures, the optimizer and the run's schedules."""

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from feldspar.model.settings import PositionScaling, SoftPromptSettings
from feldspar.noise_scale.settings import NoiseScaleBatch
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.schedules import ScheduleField, constant
from feldspar.sparsity.settings import Sparsity
from feldspar.tokens.settings import Data, FillInTheMiddle, PairsData, Select, ShardsData

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

MOST_STAIRS = 100_000
"""Of a ramp of batch sizes: each is a stretch of the plan."""


class OptimizerSettings(Settings):
    """AdamW with decoupled weight decay on matrices."""

    type: Literal["adamw"] = "adamw"
    betas: Betas = (0.9, 0.95)
    """Decay rates of the two moments, per step."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay of tensors with at least two dimensions, multiplied by the learning rate."""
    clip_norm: PositiveFloat | Literal["none"] = 1.0
    """Largest norm of the whole gradient; none: no clipping."""


class PhaseOptimizer(Settings):
    """What a phase changes of the optimizer; it starts with fresh moments."""

    betas: Betas | None = None
    """Decay rates of the two moments; default: the section's."""
    epsilon: PositiveFloat | None = None
    """Added to the root of the second moment; default: the section's."""
    clip_norm: PositiveFloat | Literal["none"] | None = None
    """Largest norm of the whole gradient; none: no clipping; default: the section's."""


class LossSettings(Settings):
    """Which tokens' losses are summed, and what the sum is divided by."""

    on: Literal["all", "target"] = "all"
    """all tokens, or those of the targets of pairs with their ends."""
    average: Literal["valid_tokens", "all_positions"] = "valid_tokens"
    """The mean over the tokens whose losses count, or over every position of the step's
    sequences."""


class SgdSettings(Settings):
    """Stochastic gradient descent with momentum; decay of matrices and kernels, in the gradient."""

    type: Literal["sgd"]
    learning_rate: PositiveFloat
    """Peak, which the run's schedule is a fraction of."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last update a step keeps."""
    nesterov: bool = False
    """Look ahead by the momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Times the weight, added to its gradient; none for norms and biases."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""

    @model_validator(mode="after")
    def _momentum_to_look_ahead(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: there is no momentum to look ahead by")
        return self


class RmsPropSettings(Settings):
    """RMSprop with momentum; decay of matrices and kernels, in the gradient."""

    type: Literal["rmsprop"]
    learning_rate: PositiveFloat
    """Peak, which the run's schedule is a fraction of."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of the mean square of the gradient, per step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last update a step keeps."""
    epsilon: PositiveFloat = 1e-3
    """Added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Times the weight, added to its gradient; none for norms and biases."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""


class RunSchedule(Settings):
    """Schedules over the whole run, as fractions of the peak."""

    learning_rate: ScheduleField = constant(1.0)
    """Fraction of the parametrization's learning rate."""
    weight_decay: ScheduleField = constant(1.0)
    """Fraction of the optimizer's weight decay."""


class ConstantBatch(Settings):
    """The same number of sequences (or tokens, down to whole sequences) in every step."""

    type: Literal["constant"] = "constant"
    sequences: Count | None = None
    """Sequences a step."""
    tokens: PositiveFloat | None = None
    """Tokens a step; rounded down to whole sequences."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.sequences is None) == (self.tokens is None):
            raise ValueError("give either sequences or tokens")
        return self


class BatchLevel(Settings):
    """A batch size that holds from some point of the phase on."""

    from_: Annotated[Amount, Field(alias="from")]
    """Where it begins: steps or tokens of the phase."""
    sequences: Count
    """Sequences a step."""


class BatchByTokens(Settings):
    """A staircase of batch sizes."""

    type: Literal["by_tokens"]
    levels: Annotated[tuple[BatchLevel, ...], Field(min_length=1)]
    """The stairs in order; the first begins at 0."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.levels[0].from_.value != 0:
            raise ValueError("levels.0.from: the first level begins at 0")
        units = {level.from_.unit for level in self.levels}
        if len(units) > 1 or not units <= {Unit.STEPS, Unit.TOKENS}:
            raise ValueError("levels: give every `from` in steps, or every one in tokens")
        starts = [level.from_.value for level in self.levels]
        for earlier, later in itertools.pairwise(starts):
            if later <= earlier:
                raise ValueError(f"levels: from {later} does not come after {earlier}")
        return self


class BatchRamp(Settings):
    """A straight line in tokens, up to whole quanta (the open-loop ramp of 2411.00999)."""

    type: Literal["linear_ramp"]
    from_: Annotated[Amount, Field(alias="from")]
    """Sequences at the start."""
    to: Amount
    """Sequences at the end."""
    quantum: Amount
    """The batch is a multiple of this many sequences."""
    over: Amount
    """Tokens of the ramp."""

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        for key in ("from_", "to", "quantum"):
            amount: Amount = getattr(self, key)
            if amount.unit is not Unit.SEQUENCES or amount.value < 1 or amount.value % 1:
                raise ValueError(f"{key.strip('_')}: a whole number of sequences is needed")
        if self.from_.value > self.to.value:
            raise ValueError(f"from: {self.from_} is more than {self.to}")
        if self.from_.value % self.quantum.value:
            raise ValueError(f"from: {self.from_} is no multiple of {self.quantum}")
        if self.to.value % self.quantum.value:
            raise ValueError(f"to: {self.to} is no multiple of {self.quantum}")
        stairs = (self.to.value - self.from_.value) / self.quantum.value
        if stairs > MOST_STAIRS:
            raise ValueError(
                f"quantum: {self.quantum} makes {stairs:.3g} stairs of the ramp; at most "
                f"{MOST_STAIRS:,}: give a larger quantum"
            )
        if self.over.unit is not Unit.TOKENS or self.over.value <= 0:
            raise ValueError("over: an amount in tokens above 0 is needed")
        return self


def _constant_unless_typed(value: Any) -> Any:
    if isinstance(value, dict) and "type" not in value:
        return {"type": "constant", **value}
    return value


Batch = Annotated[
    ConstantBatch | BatchByTokens | BatchRamp | NoiseScaleBatch,
    Field(discriminator="type"),
    BeforeValidator(_constant_unless_typed),
]


class MixtureEntry(Settings):
    """How much of one source a phase reads."""

    probability: Annotated[float, Field(ge=0)] | None = None
    """Share of the phase's tokens."""
    epochs: PositiveFloat | None = None
    """Passes over the source, or over the part that is selected."""
    select: Select | None = None
    """Read a part of the source only."""
    fill_in_the_middle: FillInTheMiddle | None = None
    """Transform the source's documents; drawn anew in each epoch."""

    @model_validator(mode="after")
    def _something_given(self) -> Self:
        if self.probability is None and self.epochs is None:
            raise ValueError("give probability, epochs or both")
        return self


class TrainableRows(Settings):
    """Parameters, and which of their rows are trained."""

    parameters: Annotated[tuple[str, ...], Field(min_length=1)]
    """Roles or globs of names."""
    rows: Literal["all", "new"] = "all"
    """new: only the rows of tokens that the extended tokenizer adds; gradient, decay and moments
    know no others."""


Mixture = Literal["natural"] | dict[str, Annotated[float, Field(ge=0)] | MixtureEntry]


class PhaseSettings(Settings):
    """What may change during a run; a phase inherits nothing but the weights."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name in logs and metrics."""
    length: Amount
    """Tokens, steps, tokens_per_parameter, sequences or epochs; rounded down to whole steps."""
    mixture: Mixture = "natural"
    """Share of each source; natural: by its tokens."""
    allow_repeat: bool | tuple[str, ...] = False
    """Sources that may be read more than once (true: all)."""
    normalize_mixture: bool = False
    """Scale probabilities that do not sum to 1."""
    context_length: Count | None = None
    """Tokens of a sequence; default: model.max_sequence_length."""
    documents: Literal["concatenate", "mask"] = "concatenate"
    """Pack documents one after the other; mask keeps attention within a document."""
    batch: Batch
    """Sequences of one optimizer step."""
    learning_rate: ScheduleField | None = None
    """Absolute learning rate over this phase, in place of the run's schedule."""
    weight_decay: ScheduleField | None = None
    """Absolute weight decay over this phase, in place of the run's schedule."""
    optimizer_state: Literal["keep", "fresh"] | None = None
    """Carry the moments over, or start anew; must be said where a later phase warms up or has
    another number of tokens a step, and be fresh where it drops masks."""
    trainable: Literal["all"] | tuple[str, ...] | TrainableRows = "all"
    """Which parameters are trained: roles or globs of names; or {parameters, rows}."""
    sparsity: Sparsity | None = None
    """Which matrices are masked; default: what the previous phase (first: the run that start_from
    names) had, else dense. A later phase keeps the masks or drops them."""
    position_scaling: PositionScaling | None = None
    """How positions are scaled to a longer context; default: what the previous phase (first: what
    start_from names) had, else none."""
    data: Data = ShardsData()
    """Windows of the shards' sources, or pairs from a file for fine-tuning."""
    soft_prompt: SoftPromptSettings | None = None
    """Learned vectors in the sequences of pairs; default: none."""
    loss: LossSettings = LossSettings()
    """Which tokens' losses count, and how they are averaged."""
    optimizer: PhaseOptimizer | None = None
    """What this phase changes of the optimizer; needs optimizer_state: fresh."""
    checkpoint_every: Amount | None = None
    """In place of checkpoints.every."""
    evaluate_every: Amount | None = None
    """In place of evaluation.every."""

    @property
    def trains_new_rows_only(self) -> bool:
        """Whether rows that were there before an extension stay as they are."""
        return isinstance(self.trainable, TrainableRows) and self.trainable.rows == "new"

    @property
    def entries(self) -> dict[str, MixtureEntry]:
        """The sources of the mixture of which more is said than a share."""
        if isinstance(self.mixture, str):
            return {}
        return {
            name: entry for name, entry in self.mixture.items() if isinstance(entry, MixtureEntry)
        }

    @property
    def pairs(self) -> PairsData | None:
        """The pairs that the phase reads; None where it reads shards."""
        return self.data if isinstance(self.data, PairsData) else None

    @property
    def soft_prompt_length(self) -> int:
        """Learned vectors in each of the phase's sequences."""
        return 0 if self.soft_prompt is None else self.soft_prompt.length

    @property
    def selections(self) -> dict[str, Select]:
        """Sources of which a part is read."""
        return {name: e.select for name, e in self.entries.items() if e.select}

    @property
    def infillings(self) -> dict[str, FillInTheMiddle]:
        """Sources whose documents are transformed."""
        return {
            name: e.fill_in_the_middle for name, e in self.entries.items() if e.fill_in_the_middle
        }

    @model_validator(mode="after")
    def _absolute_length(self) -> Self:
        if self.length.relative or self.length.value <= 0:
            raise ValueError(
                f"length: {self.length} is no absolute amount above 0: a phase's length defines "
                "the run"
            )
        if isinstance(self.mixture, dict) and not self.mixture:
            raise ValueError("mixture: names no source")
        return self

    @model_validator(mode="after")
    def _pairs_and_shards_are_apart(self) -> Self:
        if self.pairs is None:
            if self.soft_prompt_length:
                raise ValueError(
                    "soft_prompt: its vectors stand in pairs: give data: {type: pairs}"
                )
            if self.loss.on == "target":
                raise ValueError("loss.on: only pairs have targets: give data: {type: pairs}")
            return self
        for key in ("mixture", "allow_repeat", "normalize_mixture", "documents"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: concerns sources of shards; this phase reads pairs")
        return self


class StartFromScratch(Settings):
    """Random weights from the parametrization's table."""

    type: Literal["scratch"] = "scratch"


class StartFromRun(Settings):
    """The weights of another run's checkpoint."""

    type: Literal["run"]
    path: str
    """The run folder."""
    checkpoint: str = "last"
    """last, or the number of tokens of a checkpoint."""
    recipe: str | None = None
    """The recipe that trains that run: named where the run is missing."""


class StartFromHuggingFace(Settings):
    """The weights of a Hugging Face folder."""

    type: Literal["huggingface"]
    path: str
    """The folder."""


StartFrom = StartFromScratch | StartFromRun | StartFromHuggingFace
