"""The phases of a run: data, length, batch, learning rate and what each phase changes."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.schedules import ScheduleField, constant
from feldspar.recipe.sections.batch import Batch
from feldspar.recipe.sections.model import PositionScaling, SoftPromptSettings
from feldspar.recipe.sections.optimizer import PhaseOptimizer
from feldspar.recipe.sections.phase_data import Data, FillInTheMiddle, PairsData, Select, ShardsData
from feldspar.recipe.sections.sparsity import Sparsity


class LossSettings(Settings):
    """Which tokens' losses are summed, and what the sum is divided by."""

    on: Literal["all", "target"] = "all"
    """all tokens, or those of the targets of pairs with their ends."""
    average: Literal["valid_tokens", "all_positions"] = "valid_tokens"
    """The mean over the tokens whose losses count, or over every position of the step's
    sequences."""


class RunSchedule(Settings):
    """Schedules over the whole run, as fractions of the peak."""

    learning_rate: ScheduleField = constant(1.0)
    """Fraction of the parametrization's learning rate."""
    weight_decay: ScheduleField = constant(1.0)
    """Fraction of the optimizer's weight decay."""


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
