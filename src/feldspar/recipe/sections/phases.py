"""Settings of a run's phases: data, length, batch, learning rate and changes of each phase."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.schedules import ScheduleField, constant
from feldspar.recipe.sections.batch import Batch
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import SoftPromptSettings
from feldspar.recipe.sections.optimizer import PhaseOptimizer
from feldspar.recipe.sections.phase_data import (
    Data,
    Examples,
    FillInTheMiddle,
    MessagesData,
    PairsData,
    Select,
    ShardsData,
)
from feldspar.recipe.sections.position_scaling import PositionScaling
from feldspar.recipe.sections.sparsity import Sparsity


class LossSettings(Settings):
    """Tokens whose losses are summed, and the divisor of the sum."""

    on: Literal["all", "target"] = "all"
    """all: every token. target: the tokens of the targets of pairs, or of the assistant's turns of
    messages, with their end tokens."""
    average: Literal["valid_tokens", "all_positions"] = "valid_tokens"
    """valid_tokens: divide by the number of tokens whose losses are summed. all_positions: divide
    by all positions of the step's sequences."""


class RunSchedule(Settings):
    """Schedules over the whole run, as fractions of the peak."""

    learning_rate: ScheduleField = constant(1.0)
    """Fraction of the parametrization's learning rate."""
    weight_decay: ScheduleField = constant(1.0)
    """Fraction of the optimizer's weight decay."""


class MixtureEntry(Settings):
    """Amount of one source that a phase reads."""

    probability: Annotated[float, Field(ge=0)] | None = None
    """Share of the phase's tokens."""
    epochs: PositiveFloat | None = None
    """Passes over the source, or over its selected part."""
    select: Select | None = None
    """Read only a part of the source."""
    fill_in_the_middle: FillInTheMiddle | None = None
    """Transform the source's documents; the transformation is drawn again in each epoch."""

    @model_validator(mode="after")
    def _something_given(self) -> Self:
        if self.probability is None and self.epochs is None:
            raise ValueError("give probability, epochs or both")
        return self


class TrainableRows(Settings):
    """Parameters that are trained, and which of their rows."""

    parameters: Annotated[tuple[str, ...], Field(min_length=1)]
    """Roles, or globs of parameter names."""
    rows: Literal["all", "new"] = "all"
    """new: train only the rows of tokens that the extended tokenizer adds. Other rows get no
    gradient, no weight decay and no moments."""


Mixture = Literal["natural"] | dict[str, Annotated[float, Field(ge=0)] | MixtureEntry]


class PhaseSettings(Settings):
    """Everything that may change during a run. A phase inherits only the weights from the one
    before it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name in logs and metrics."""
    length: Amount
    """Length in tokens, steps, tokens_per_parameter, sequences or epochs; rounded down to whole
    steps."""
    mixture: Mixture = "natural"
    """Share of each source. natural: in proportion to the tokens of each source."""
    allow_repeat: bool | tuple[str, ...] = False
    """Sources that may be read more than once; true: all sources."""
    normalize_mixture: bool = False
    """Scale probabilities to a sum of 1."""
    context_length: Count | None = None
    """Tokens of a sequence; default: model.max_sequence_length."""
    documents: Literal["concatenate", "mask"] = "concatenate"
    """Documents are packed one after the other. mask: attention does not cross from one document to
    another."""
    batch: Batch
    """Sequences of one optimizer step."""
    learning_rate: ScheduleField | None = None
    """Absolute learning rate over this phase, instead of the run's schedule."""
    weight_decay: ScheduleField | None = None
    """Absolute weight decay over this phase, instead of the run's schedule."""
    optimizer_state: Literal["keep", "fresh"] | None = None
    """keep: carry the optimizer's moments over; fresh: start new ones. Required where a later phase
    warms up or has another number of tokens in each step. Must be fresh where the phase drops
    masks."""
    trainable: Literal["all"] | tuple[str, ...] | TrainableRows = "all"
    """Parameters that are trained: all; roles or globs of names; or {parameters, rows}. With lora,
    all adds nothing: the others name what is trained beside the matrices of LoRA."""
    lora: LoraSettings | None = None
    """Train low-rank updates of frozen matrices, which are added to the weights at the end of the
    phase, unless the next phase has the same lora. Default: none."""
    sparsity: Sparsity | None = None
    """Matrices that are masked. Default: as in the previous phase (for the first phase: as in the
    run that start_from names), without moves, else dense. A later phase keeps the masks, moves
    them or drops them; only gradual pruning may follow a dense phase."""
    position_scaling: PositionScaling | None = None
    """Scaling of positions to a longer context. Default: as in the previous phase (for the first
    phase: as in start_from), else none."""
    data: Data = ShardsData()
    """Windows of the shards' sources, or pairs or messages from a file for fine-tuning."""
    soft_prompt: SoftPromptSettings | None = None
    """Learned vectors in the sequences of pairs; default: none."""
    loss: LossSettings = LossSettings()
    """Tokens whose losses count, and how the losses are averaged."""
    optimizer: PhaseOptimizer | None = None
    """Changes of the optimizer in this phase; needs optimizer_state: fresh."""
    checkpoint_every: Amount | None = None
    """Used instead of checkpoints.every."""
    evaluate_every: Amount | None = None
    """Used instead of evaluation.every."""

    @model_serializer(mode="wrap")
    def _without_absent_lora(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out lora that is not there: such phases keep the values that they had."""
        values = handler(self)
        if self.lora is None:
            values.pop("lora", None)
        return values

    @property
    def trains_new_rows_only(self) -> bool:
        """True where rows that existed before the vocabulary was extended are not trained."""
        return isinstance(self.trainable, TrainableRows) and self.trainable.rows == "new"

    @property
    def entries(self) -> dict[str, MixtureEntry]:
        """Sources of the mixture that have settings beside a share."""
        if isinstance(self.mixture, str):
            return {}
        return {
            name: entry for name, entry in self.mixture.items() if isinstance(entry, MixtureEntry)
        }

    @property
    def pairs(self) -> PairsData | None:
        """Pairs that the phase reads; None where it reads shards."""
        return self.data if isinstance(self.data, PairsData) else None

    @property
    def examples(self) -> Examples | None:
        """Pairs or messages that the phase reads; None where it reads shards."""
        return None if isinstance(self.data, ShardsData) else self.data

    @property
    def messages(self) -> MessagesData | None:
        """Conversations that the phase reads; None where it reads other data."""
        return self.data if isinstance(self.data, MessagesData) else None

    @property
    def soft_prompt_length(self) -> int:
        """Number of learned vectors in each of the phase's sequences."""
        return 0 if self.soft_prompt is None else self.soft_prompt.length

    @property
    def selections(self) -> dict[str, Select]:
        """Sources of which only a part is read."""
        return {name: e.select for name, e in self.entries.items() if e.select}

    @property
    def infilled_documents(self) -> dict[str, FillInTheMiddle]:
        """Sources whose documents are transformed before they are packed."""
        return {name: how for name, how in self.infillings.items() if how.scope == "document"}

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
                f"length: {self.length} must be an absolute amount above 0, because a "
                "phase's length defines the length of the run"
            )
        if isinstance(self.mixture, dict) and not self.mixture:
            raise ValueError("mixture: it names no source")
        return self

    @model_validator(mode="after")
    def _examples_and_shards_are_apart(self) -> Self:
        if self.pairs is None and self.soft_prompt_length:
            raise ValueError(
                "soft_prompt: it works with pairs only, because text and conversations are written "
                "without its vectors; set data: {type: pairs}"
            )
        if self.examples is None:
            if self.loss.on == "target":
                raise ValueError(
                    "loss.on: target works with pairs and messages only; set data: {type: pairs} "
                    "or {type: messages}"
                )
            return self
        for key in ("mixture", "allow_repeat", "normalize_mixture", "documents"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}: it applies to shards only, and this phase reads {self.examples.type}; "
                    "remove it"
                )
        return self
