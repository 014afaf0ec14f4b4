"""The tokenizer and the folder of shards."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings

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
