"""The data of a phase: shards or pairs, selection of documents, fill-in-the-middle."""

from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.recipe.sections.tokens import Share


class FillInTheMiddle(Settings):
    """Cut documents in three and put the middle last, so that the model learns to fill gaps."""

    rate: Share
    """Share of the documents' parts that are transformed; the others stay as they are."""
    spm: Share = 0.5
    """Share of those with the suffix first (SPM, its second variant) instead of prefix, suffix,
    middle (PSM)."""
    scope: Literal["context"]
    """context: what a window of the phase holds of each document is transformed after packing, and
    the window cut or filled to its length."""


class Select(Settings):
    """Part of a source; parts have passes and an order of their own."""

    files: Literal["even", "odd"] | None = None
    """Every second file of its shards, the first being even."""
    range: tuple[Share, Share] | None = None
    """From which to which share of its documents, in the order of the shards: [0, 0.1]."""

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if (self.files is None) == (self.range is None):
            raise ValueError("give either files or range")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range: {self.range[0]:g} is not below {self.range[1]:g}")
        return self

    def label(self, source: str) -> str:
        """How errors and random streams call this part of ``source``."""
        if self.range is None:
            return f"{source}[{self.files} files]"
        return f"{source}[{self.range[0]:.15g} to {self.range[1]:.15g}]"

    @property
    def expected_share(self) -> float:
        """The share of a source's tokens that a part holds, give or take where documents end."""
        return 0.5 if self.range is None else self.range[1] - self.range[0]

    def overlaps(self, other: "Select") -> bool:
        """Tell whether two parts of one source may hold the same document."""
        if self.range is not None and other.range is not None:
            return self.range[0] < other.range[1] and other.range[0] < self.range[1]
        return self.files is None or other.files is None or self.files == other.files


LABELS = "labels"
"""The place in a target where the labels stand."""


def fields_in(text: str) -> list[str]:
    """Return the places of a template in their order. Raises ValueError for one of another form."""
    places = []
    for _, name, form, conversion in Formatter().parse(text):
        if name is None:
            continue
        if not name or form or conversion or "[" in name or "{" in name:
            raise ValueError(
                f"{text!r} has a place that is no field's name; write {{field}}, and {{{{ for a "
                "brace"
            )
        places.append(name)
    return places


class PairLabels(Settings):
    """The closed set that the answers of a task are taken from."""

    field: str
    """Field of a record that holds its label, or the list of its labels."""
    values: Annotated[tuple[str, ...], Field(min_length=2)]
    """Every label, in the order that several are written in."""
    several: bool = False
    """Whether a record has any number of labels instead of one; they are written with ", "."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.values)) < len(self.values) or "" in self.values:
            raise ValueError("values: labels must be distinct and not empty")
        if self.several and any("," in label for label in self.values):
            raise ValueError("values: a label with a comma cannot stand among several")
        return self


class PairTemplate(Settings):
    """How a record becomes a source, which is given, and a target, which is to be learned."""

    source: str
    """Text with a record's fields in braces: "question: {question}"; dots lead into records."""
    target: str
    """The same for the target; {labels} is where the labels stand."""
    labels: PairLabels | None = None
    """The closed set of labels, where the task has one."""

    @field_validator("source", "target")
    @classmethod
    def _readable(cls, text: str) -> str:
        if not fields_in(text):
            raise ValueError(f"{text!r} names no field of a record")
        return text

    @model_validator(mode="after")
    def _labels_where_they_are(self) -> Self:
        places = fields_in(self.target).count(LABELS)
        if self.labels is not None and places != 1:
            raise ValueError("target: {labels} must stand in it once")
        if self.labels is not None and len(fields_in(self.target)) > 1:
            raise ValueError("target: beside {labels} there can be no other field")
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
"""The templates that come with the package, by name. Records of PubMedQA name their fields
differently (``QUESTION``, ``CONTEXTS``, ``final_decision``): a recipe may give its own template, or
a script may rename the fields."""


def _shipped_template(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in TEMPLATES:
        raise ValueError(f"there is no template {value!r}; shipped are {', '.join(TEMPLATES)}")
    return TEMPLATES[value]


class ShardsData(Settings):
    """The sources of the recipe's shards, mixed."""

    type: Literal["shards"] = "shards"


class PairsData(Settings):
    """Pairs of a source and a target, one record a line of a file."""

    type: Literal["pairs"] = "pairs"
    path: Path
    """JSON lines, plain or compressed with gzip or Zstandard."""
    template: Annotated[PairTemplate, BeforeValidator(_shipped_template)]
    """How a record becomes a pair, or the name of a shipped template."""
    truncate: Literal["source"] | None = None
    """source: a pair that is too long loses the beginning of its source; default: an error."""
    tokens: Count | None = None
    """Declared tokens of one pass, padding included, for plans without the file."""


Data = Annotated[ShardsData | PairsData, Field(discriminator="type"), NameOrMapping]
