"""Tokenizer and shards."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from feldspar.recipe.base import NameOrMapping, Settings

END_OF_DOCUMENT = "<|endoftext|>"


class TrainBpe(Settings):
    """Train a byte-level BPE on the recipe's own documents."""

    type: Literal["train_bpe"] = "train_bpe"
    vocab_size: Annotated[int, Field(ge=257)]
    """Tokens, the 256 bytes and the special tokens included."""
    sample_bytes: PositiveInt | None = None
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
    vocab_size: PositiveInt | None = None
    """Declared size for dry runs without the files; checked when they are there."""


class BpeFiles(Settings):
    """A byte-level BPE as GPT-2 ships it: a vocabulary and a list of merges."""

    type: Literal["bpe_files"] = "bpe_files"
    vocab: Path
    """JSON file, token to id."""
    merges: Path
    """Text file, one merge a line."""
    end_of_document: str = END_OF_DOCUMENT
    """Token that ends a document."""


Tokenizer = Annotated[
    TrainBpe | HuggingFaceTokenizer | BpeFiles, Field(discriminator="type"), NameOrMapping
]


class ShardSettings(Settings):
    """Where ``tokens build`` writes and training reads."""

    path: Path
    """Folder of the shards, one sub-folder a split and source."""
    shard_tokens: PositiveInt = 2**28
    """A new shard file starts after this many tokens, at a document's end."""
