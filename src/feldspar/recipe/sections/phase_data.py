"""Settings of a phase's data: shards, pairs or messages, selected documents, gaps to fill."""

from datetime import date
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.recipe.sections.tokens import Share


class FillInTheMiddle(Settings):
    """Cut documents into three parts and move the middle to the end, so that the model learns to
    fill gaps."""

    rate: Share
    """Share of documents (or of their parts in a window) that are transformed; the others stay as
    they are."""
    spm: Share = 0.5
    """Share of the transformed ones that put the suffix first (SPM, second variant) instead of
    prefix, suffix, middle (PSM)."""
    scope: Literal["document", "context"] = "document"
    """document: documents are transformed before they are packed into windows, so no text is lost.
    context: documents are packed into windows first. Then the part of each document in a window is
    transformed, and the window is cut or filled to its length."""

    def label(self, part: str) -> str:
        """Return the name of a source, or of a part of it, whose documents are transformed."""
        return f"{part}[fill-in-the-middle {self.rate:.15g}, {self.spm:.15g}]"


class Select(Settings):
    """Part of a source; each part has its own passes and its own order."""

    files: Literal["even", "odd"] | None = None
    """Half of the shard files: every second one; the first file is even."""
    range: tuple[Share, Share] | None = None
    """First and last share of the source's documents, in the order of the shards: [0, 0.1]."""

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if (self.files is None) == (self.range is None):
            raise ValueError("give either files or range")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range: {self.range[0]:g} must be less than {self.range[1]:g}")
        return self

    def label(self, source: str) -> str:
        """Return the name of this part of ``source`` for errors and random streams."""
        if self.range is None:
            return f"{source}[{self.files} files]"
        return f"{source}[{self.range[0]:.15g} to {self.range[1]:.15g}]"

    @property
    def expected_share(self) -> float:
        """Expected share of the source's tokens; documents are not cut, so the true share may
        differ."""
        return 0.5 if self.range is None else self.range[1] - self.range[0]

    def overlaps(self, other: "Select") -> bool:
        """Tell whether two parts of one source may hold the same document."""
        if self.range is not None and other.range is not None:
            return self.range[0] < other.range[1] and other.range[0] < self.range[1]
        return self.files is None or other.files is None or self.files == other.files


LABELS = "labels"
"""Name of the field in a target template that stands for the labels."""


def fields_in(text: str) -> list[str]:
    """Return the fields of a template in order.

    Raises ValueError for a template that is malformed.
    """
    places = []
    for _, name, form, conversion in Formatter().parse(text):
        if name is None:
            continue
        if not name or form or conversion or "[" in name or "{" in name:
            raise ValueError(
                f"{text!r} has a field without a plain name; write {{field}} for a field, "
                "and {{ for a brace"
            )
        places.append(name)
    return places


class PairLabels(Settings):
    """Closed set of labels that the answers of a task are taken from."""

    field: str
    """Field of a record that holds its label, or a list of labels."""
    values: Annotated[tuple[str, ...], Field(min_length=2)]
    """All labels. Where a record has several, they are written in this order."""
    several: bool = False
    """A record may have any number of labels instead of one; they are written with ", " between
    them."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.values)) < len(self.values) or "" in self.values:
            raise ValueError("values: labels must be distinct and not empty")
        if self.several and any("," in label for label in self.values):
            raise ValueError("values: with several: true, no label may contain a comma")
        return self


class PairTemplate(Settings):
    """Turn a record into a source, which is given, and a target, which is learned."""

    source: str
    """Text with fields of a record in braces: "question: {question}". Dots lead into nested
    records."""
    target: str
    """Template of the target; {labels} stands for the labels."""
    labels: PairLabels | None = None
    """Closed set of labels, if the task has one."""

    @field_validator("source", "target")
    @classmethod
    def _readable(cls, text: str) -> str:
        if not fields_in(text):
            raise ValueError(f"{text!r} contains no field of a record; add one in braces")
        return text

    @model_validator(mode="after")
    def _labels_where_they_are(self) -> Self:
        places = fields_in(self.target).count(LABELS)
        if self.labels is not None and places != 1:
            raise ValueError("target: {labels} must appear exactly once")
        if self.labels is not None and len(fields_in(self.target)) > 1:
            raise ValueError("target: {labels} must be the only field")
        return self


HALLMARKS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)

TEMPLATES: dict[str, dict[str, Any]] = {
    "question_context_answer": {
        "source": "question: {question}\ncontext: {context}\n",
        "target": "the answer to the question given the context is {labels}.",
        "labels": {"field": "answer", "values": ("yes", "no", "maybe")},
    },
    "text_hallmarks": {
        "source": "{text}\n",
        "target": "the hallmarks of cancer in this text are {labels}.",
        "labels": {"field": "hallmarks", "values": HALLMARKS, "several": True},
    },
    "source_target": {"source": "{source}\n", "target": "{target}"},
}
"""Templates that come with the package, by name. PubMedQA names its fields differently
(``QUESTION``, ``CONTEXTS``, ``final_decision``): give your own template in the recipe, or rename
the fields with a script."""


def _shipped_template(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in TEMPLATES:
        raise ValueError(
            f"no template is named {value!r}; shipped templates: {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[value]


class ShardsData(Settings):
    """A mixture of the sources of the recipe's shards."""

    type: Literal["shards"] = "shards"


class PairsData(Settings):
    """Pairs of a source and a target; each line of a file is one record."""

    type: Literal["pairs"] = "pairs"
    path: Path
    """JSON lines, plain or compressed with gzip or Zstandard."""
    template: Annotated[PairTemplate, BeforeValidator(_shipped_template)]
    """Template that turns a record into a pair, or the name of a shipped template."""
    truncate: Literal["source"] | None = None
    """source: cut the beginning of the source of a pair that is too long. Default: such a pair is
    an error."""
    tokens: Count | None = None
    """Declared tokens of one pass, padding included, for plans without the file."""


class MessagesData(Settings):
    """Conversations; each line of a file is one, and the assistant's turns are the targets."""

    type: Literal["messages"] = "messages"
    path: Path
    """JSON lines with a list messages of {role, content}; roles: system, user, assistant, tool.
    Plain or compressed with gzip or Zstandard."""
    template: Path | None = None
    """File of a chat template (Jinja), which then belongs to the trained model. Default: the
    tokenizer's own."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    """Day for templates that name it, such as 2024-07-26; required for these."""
    truncate: Literal["turns"] | None = None
    """turns: end a conversation that is too long after the last answer that fits. Default: such a
    conversation is an error."""
    tokens: Count | None = None
    """Declared tokens of one pass, padding included, for plans without the file."""

    @field_validator("date")
    @classmethod
    def _a_day(cls, text: str | None) -> str | None:
        if text is not None:
            date.fromisoformat(text)
        return text


Examples = PairsData | MessagesData
"""Data of which each record of a file is one training example."""
Data = Annotated[ShardsData | PairsData | MessagesData, Field(discriminator="type"), NameOrMapping]
