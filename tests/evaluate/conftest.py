"""A random decoder with a byte tokenizer, and small shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.evaluate.text_model import TextModel
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

END = "<|endoftext|>"
LINES = [
    "the river runs under the old stone house",
    "a light over the tree; 12 and 3.5",
    "def run(x, y):\n    return x + y",
    "naïve café 東京",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    """One token a byte, and the end of document."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END])
    return TextTokenizer(inner, END)


@pytest.fixture(scope="session")
def make_model(tokenizer: TextTokenizer) -> Callable[..., TextModel]:
    """A decoder with random values in every parameter, of any shape."""

    def make(
        seed: int = 0, std: float = 0.25, n_real_vocab: int | None = None, **changes: Any
    ) -> TextModel:
        small = {
            "n_layers": 2,
            "d_model": 16,
            "n_heads": 4,
            "d_ff": 24,
            "vocab_size": 257,
            "max_sequence_length": 16,
        }
        decoder = Decoder(ModelSettings.model_validate(small | changes))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                mean = 1.0 if name.endswith("norm.weight") else 0.0
                parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
        return TextModel(decoder.eval(), tokenizer, n_real_vocab)

    return make


def write_documents(folder: Path, texts: dict[str, dict[str, list[str]]]) -> Path:
    """A documents folder: split to source to texts."""
    for split, sources in texts.items():
        for source, documents in sources.items():
            target = folder / split / source
            target.mkdir(parents=True)
            names = [f"{source}-{split}-{n}" for n in range(len(documents))]
            table = {"id": names, "text": documents, "group": names, "origin": names}
            columns = pa.table(table | {"source": [source] * len(documents)})
            pq.write_table(columns, target / "part-00000.parquet")
    counts = {
        split: {name: {"documents": len(documents)} for name, documents in sources.items()}
        for split, sources in texts.items()
    }
    manifest = Manifest(
        "documents",
        "test",
        "0",
        counts={"splits": counts, "sources": sorted(texts["train"])},
        files=records_of(folder),
    )
    write_manifest(folder, manifest)
    return folder


def held_out_texts() -> dict[str, list[str]]:
    return {
        "prose": [f"{line}\n{LINES[0]} {n}\n" for n, line in enumerate(LINES * 3)],
        "code": [f"x_{n} = {n}\nprint(x_{n})\n" for n in range(7)],
    }


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Two sources, all splits, a byte-pair tokenizer of 300 tokens."""
    return shards_with(tmp_path_factory.mktemp("held-out"), held_out_texts())


def shards_with(folder: Path, test: dict[str, list[str]]) -> ShardSet:
    """Shards of two sources whose test split holds the given texts."""
    train = {"prose": [line + "\n" for line in LINES * 10], "code": ["x = 1\n"] * 10}
    splits = {"train": train, "validation": held_out_texts(), "test": test}
    documents = write_documents(folder / "documents", splits)
    settings = ShardSettings(path=folder / "shards", shard_tokens=400)
    build_shards(documents, TrainBpe(vocab_size=300), settings, seed=3, workers=1)
    return ShardSet.open(folder / "shards")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
