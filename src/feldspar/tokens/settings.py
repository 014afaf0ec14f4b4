"""Tokenizer and shards."""

from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.tokens.templates import TEMPLATES

END_OF_DOCUMENT = "<|endoftext|>"

Share = Annotated[float, Field(ge=0, le=1)]


class TrainBpe(Settings):
    """Train a byte-level BPE on the recipe's own documents."""

    type: Literal["train_bpe"] = "train_bpe"
    vocab_size: Annotated[int, Field(ge=257)]
    """Tokens, the 256 bytes and the special tokens included."""
    sample_bytes: Count | None = None
    """Train on at most this much text, drawn evenly over the sources; default: all of it."""
    special_tokens: tuple[str, ...] = (END_OF_DOCUMENT,)
    """Special tokens; the first one ends a document."""


class HuggingFaceTokenizer(Settings):
    """An existing Hugging Face tokenizer: a folder, a tokenizer.json, or a cached name."""

    type: Literal["huggingface"] = "huggingface"
    path: str
    """Folder, file or name."""
    end_of_document: str | None = None
    """Token that ends a document; default: the tokenizer's own end-of-sequence token."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that it lacks come after its vocabulary."""
    vocab_size: Count | None = None
    """Declared size for dry runs without the files, special_tokens included; checked when they are
    there."""


class BpeFiles(Settings):
    """A byte-level BPE as GPT-2 ships it: a vocabulary and a list of merges."""

    type: Literal["bpe_files"] = "bpe_files"
    vocab: Path
    """JSON file, token to id."""
    merges: Path
    """Text file, one merge a line."""
    end_of_document: str = END_OF_DOCUMENT
    """Token that ends a document."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that it lacks come after its vocabulary."""


class ExtendWith(Settings):
    """What a vocabulary is extended with."""

    corpus: str | tuple[str, ...]
    """Sources of the recipe's corpus in the new language; the others are in the old one."""
    new_tokens: Count
    """Pieces to add."""
    script: str | tuple[str, ...] | None = None
    """Scripts of the new language, such as arabic or devanagari: each new piece is in their
    characters. Default: the script of most letters of its sources."""
    characters: str | None = None
    """The characters themselves, in place of script."""
    method: Literal["continued", "append"] = "continued"
    """continued: go on merging target text that the base has tokenised. append: train on target
    text alone, then append what fits."""
    sample_bytes: Count | None = None
    """Learn from at most this much text, drawn evenly over the sources; default: all of it."""
    allow_resegmentation: bool = False
    """Extend even if the old language is written in the same characters, and is cut otherwise
    from then on."""

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.script is not None and self.characters is not None:
            raise ValueError("give either script or characters")
        return self


class ExtendTokenizer(Settings):
    """Add pieces of another language to an existing BPE; its own ids and text stay as they are."""

    type: Literal["extend"] = "extend"
    base: str
    """The tokenizer to extend: folder, file or name, as for type huggingface."""
    with_: Annotated[ExtendWith, Field(alias="with")]
    """What to add."""
    end_of_document: str | None = None
    """Token that ends a document; default: the base's own end-of-sequence token."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that it lacks come after the new pieces."""
    vocab_size: Count | None = None
    """Declared size for dry runs, old and new tokens; checked when the tokenizer is made."""


TokenizerSettings = TrainBpe | HuggingFaceTokenizer | BpeFiles | ExtendTokenizer
"""Where a recipe's tokenizer comes from."""

Tokenizer = Annotated[TokenizerSettings, Field(discriminator="type"), NameOrMapping]


class ShardSettings(Settings):
    """Where ``tokens build`` writes and training reads."""

    path: Path
    """Folder of the shards, one sub-folder a split and source."""
    shard_tokens: Count = 2**28
    """A new shard file starts after this many tokens, at a document's end."""


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
        """Whether two parts of one source may hold the same document."""
        if self.range is not None and other.range is not None:
            return self.range[0] < other.range[1] and other.range[0] < self.range[1]
        return self.files is None or other.files is None or self.files == other.files


LABELS = "labels"
"""The place in a target where the labels stand."""


def fields_in(text: str) -> list[str]:
    """The places of a template in their order. Raises ValueError for one of another form."""
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
