"""Small corpora in the documents layout, and shards made from them."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.recipe.sections.phase_data import FillInTheMiddle
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT, ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import Sentinels
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

WORDS = ["the", "a", "river", "stone", "light", "runs", "over", "under", "old", "new", "house"]
WORDS += ["tree", "écoute", "東京", "café", "12", "7", "3.5", "x_y"]
FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")


def infilling(
    rate: float, spm: float = 0.5, scope: Literal["document", "context"] = "context"
) -> FillInTheMiddle:
    """Settings of fill-in-the-middle."""
    return FillInTheMiddle(rate=rate, spm=spm, scope=scope)


def restored(tokenizer: TextTokenizer, sentinels: Sentinels, ids: list[int]) -> str:
    """The text of one transformed document or part, by the order of its sentinels."""
    suffix, middle = ids.index(sentinels.suffix), ids.index(sentinels.middle)
    assert ids[0] == sentinels.prefix and suffix < middle
    assert sum(ids.count(one) for one in (sentinels.prefix, sentinels.suffix)) == 2
    parts = [ids[1:suffix], ids[middle + 1 :], ids[suffix + 1 : middle]]
    return "".join(tokenizer.decode(part) for part in parts)


def segments(tokens: list[int], end_of_document: int) -> list[list[int]]:
    """What lies between the document ends."""
    found: list[list[int]] = [[]]
    for token in tokens:
        if token == end_of_document:
            found.append([])
        else:
            found[-1].append(token)
    return found


def write_documents(folder: Path, texts: Mapping[str, Mapping[str, list[str]]]) -> Path:
    """A documents folder with ``texts``: split to source to texts."""
    for split, sources in texts.items():
        for source, documents in sources.items():
            target = folder / split / source
            target.mkdir(parents=True)
            names = [f"{source}-{split}-{n}" for n in range(len(documents))]
            table = pa.table(
                {
                    "id": names,
                    "source": [source] * len(documents),
                    "text": documents,
                    "group": names,
                    "origin": names,
                }
            )
            pq.write_table(table, target / "part-00000.parquet")
    names = {source: {} for sources in texts.values() for source in sources}
    manifest = Manifest(
        "documents", "test", "0", counts={"sources": names}, files=records_of(folder)
    )
    write_manifest(folder, manifest)
    return folder


def some_text(rng: random.Random, words: int) -> str:
    """Random words, punctuation and line breaks."""
    return "".join(
        rng.choice(WORDS) + rng.choice([" ", " ", " ", ", ", ".\n"]) for _ in range(words)
    )


def some_texts(seed: int, documents: int, longest: int = 60) -> list[str]:
    """Documents of 1 to ``longest`` words."""
    rng = random.Random(seed)
    return [some_text(rng, rng.randint(1, longest)) for _ in range(documents)]


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources; one split for training, one for validation; an empty document among them."""
    return write_documents(
        tmp_path_factory.mktemp("corpus") / "documents",
        {
            "train": {"prose": [*some_texts(1, 300), "", " \n "], "code": some_texts(2, 120)},
            "validation": {"prose": some_texts(3, 20)},
        },
    )


@pytest.fixture(scope="session")
def bpe() -> TrainBpe:
    return TrainBpe(vocab_size=300)


@pytest.fixture(scope="session")
def shards(documents: Path, bpe: TrainBpe, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Shards of ``documents``, several files a source."""
    path = tmp_path_factory.mktemp("shards") / "shards"
    build_shards(documents, bpe, ShardSettings(path=path, shard_tokens=5000), seed=5, workers=1)
    return ShardSet.open(path)


@pytest.fixture(scope="session")
def infilling_shards(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Shards whose tokenizer has the four tokens of fill-in-the-middle."""
    bpe = TrainBpe(vocab_size=300, special_tokens=(END_OF_DOCUMENT, *FIM))
    path = tmp_path_factory.mktemp("infilling") / "shards"
    build_shards(
        documents, bpe, ShardSettings(path=path), seed=5, workers=1, infilling_scopes={"context"}
    )
    return ShardSet.open(path)
