"""Settings of the tokenizer and of the folder of shards."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults

END_OF_DOCUMENT = "<|endoftext|>"

Share = Annotated[float, Field(ge=0, le=1)]


class TrainBpe(Settings):
    """Train a byte-level BPE on the recipe's own documents."""

    type: Literal["train_bpe"] = "train_bpe"
    vocab_size: Annotated[int, Field(ge=257)]
    """Number of tokens, with the 256 bytes and the special tokens."""
    sample_bytes: Count | None = None
    """Train on at most this much text, drawn evenly over the sources; default: all of it."""
    special_tokens: tuple[str, ...] = (END_OF_DOCUMENT,)
    """Special tokens; the first one marks the end of a document."""


class HuggingFaceTokenizer(Settings):
    """An existing Hugging Face tokenizer: a folder, a tokenizer.json, or a cached name."""

    type: Literal["huggingface"] = "huggingface"
    path: str
    """Folder, file or name."""
    end_of_document: str | None = None
    """Token at the end of each document; default: the tokenizer's own end-of-sequence token."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that the tokenizer lacks are added after its vocabulary."""
    begin_of_sequence: bool | None = None
    """Begin each training sequence, measured text and prompt with the tokenizer's begin-of-sequence
    token. Default: as the tokenizer's own files say."""
    vocab_size: Count | None = None
    """Declared size, special_tokens included, for dry runs without the files; it is checked when
    the files are there."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("begin_of_sequence",))


class BpeFiles(Settings):
    """A byte-level BPE as GPT-2 ships it: a vocabulary and a list of merges."""

    type: Literal["bpe_files"] = "bpe_files"
    vocab: Path
    """JSON file that maps each token to its id."""
    merges: Path
    """Text file with one merge on each line."""
    end_of_document: str = END_OF_DOCUMENT
    """Token at the end of each document."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that the vocabulary lacks are added after it."""


class ExtendWith(Settings):
    """Sources, size and script of the tokens to add."""

    corpus: str | tuple[str, ...]
    """Sources of the recipe's corpus in the new language; all others are in the old one."""
    new_tokens: Count
    """Number of tokens to add."""
    script: str | tuple[str, ...] | None = None
    """Scripts of the new language, such as arabic or devanagari; new tokens contain only their
    characters. Default: the script of most letters in the sources."""
    characters: str | None = None
    """The characters themselves, instead of script."""
    method: Literal["continued", "append"] = "continued"
    """continued: learn further merges on target text that the base tokenizer has split. append:
    train a BPE on target text alone, then append the tokens that fit."""
    sample_bytes: Count | None = None
    """Learn from at most this much text, drawn evenly over the sources; default: all of it."""
    allow_resegmentation: bool = False
    """Extend even if the old language uses the same characters, so that its text is split
    differently."""

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.script is not None and self.characters is not None:
            raise ValueError("give either script or characters")
        return self


class ExtendTokenizer(Settings):
    """Add tokens of another language to an existing BPE. Its ids, and its splits of old text, do
    not change."""

    type: Literal["extend"] = "extend"
    base: str
    """The tokenizer to extend: folder, file or name, as for type huggingface."""
    with_: Annotated[ExtendWith, Field(alias="with")]
    """Tokens to add."""
    end_of_document: str | None = None
    """Token at the end of each document; default: the base's own end-of-sequence token."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to declare; those that the base lacks are added after the new tokens."""
    begin_of_sequence: bool | None = None
    """Begin each training sequence, measured text and prompt with the base's begin-of-sequence
    token. Default: as the base's files say."""
    vocab_size: Count | None = None
    """Declared size, old and new tokens together, for dry runs; it is checked when the tokenizer is
    made."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("begin_of_sequence",))


TokenizerSettings = TrainBpe | HuggingFaceTokenizer | BpeFiles | ExtendTokenizer
"""Ways to get a recipe's tokenizer."""

Tokenizer = Annotated[TokenizerSettings, Field(discriminator="type"), NameOrMapping]


class ShardSettings(Settings):
    """Shards that ``tokens build`` writes and training reads."""

    path: Path
    """Folder of the shards, with one sub-folder for each split and source."""
    shard_tokens: Count = 2**28
    """Number of tokens after which a new shard file starts, at the end of a document."""
