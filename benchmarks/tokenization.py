"""Building shards against ``datasets.map`` with the same tokenizer on the same documents.

The documents are this Python's own library, in three sources. Each way starts from Parquet and ends
with all tokens on disk; both use every core. Rounds alternate, the best of each counts. Run:

    python benchmarks/tokenization.py
"""

import argparse
import json
import os
import platform
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feldspar.core.execution import available_cores
from feldspar.core.machine import processor
from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.tokenizer.bpe import train_bpe

RESULTS = Path(__file__).parent / "results" / "tokenization.json"
SOURCES = ("first", "second", "third")


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--vocab-size", type=int, default=16_384)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), options.megabytes, options.rounds, options.vocab_size)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(folder: Path, megabytes: float, rounds: int, vocab_size: int) -> dict[str, Any]:
    """Write documents, train one tokenizer, then time both ways ``rounds`` times."""
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    texts = library_texts(int(megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts)
    documents = write_documents(folder / "documents", texts)
    train_bpe(texts[::5], vocab_size, ("<|endoftext|>",)).save(folder / "tokenizer")
    workers = available_cores()
    seconds: dict[str, list[float]] = {"feldspar": [], "datasets": []}
    tokens: dict[str, int] = {}
    for number in range(rounds):
        for way, work in (("feldspar", with_feldspar), ("datasets", with_datasets)):
            elapsed, tokens[way] = timed(work, documents, folder, f"{way}-{number}", workers)
            seconds[way].append(elapsed)
    if tokens["feldspar"] - len(texts) != tokens["datasets"]:
        raise SystemExit(f"the two ways disagree: {tokens}, {len(texts)} documents")
    best = {way: min(times) for way, times in seconds.items()}
    return {
        "machine": {
            "processor": processor(),
            "cores": workers,
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "text_bytes": size,
        "documents": len(texts),
        "vocab_size": vocab_size,
        "seconds": seconds,
        "megabytes_per_second": {way: size / 1e6 / value for way, value in best.items()},
        "ratio": best["datasets"] / best["feldspar"],
        "target_ratio": 2.0,
    }


def timed(
    work: Callable[[Path, Path, str, int], int],
    documents: Path,
    folder: Path,
    name: str,
    workers: int,
) -> tuple[float, int]:
    """Seconds and tokens."""
    start = time.perf_counter()
    tokens = work(documents, folder, name, workers)
    return time.perf_counter() - start, tokens


def with_feldspar(documents: Path, folder: Path, name: str, workers: int) -> int:
    """Shuffle, encode, write shards and checksums."""
    report = build_shards(
        documents,
        HuggingFaceTokenizer(path=str(folder / "tokenizer")),
        ShardSettings(path=folder / name),
        seed=1,
        workers=workers,
    )
    return sum(counts.tokens for counts in report.splits["train"].values())


def with_datasets(documents: Path, folder: Path, name: str, workers: int) -> int:
    """Batched ``map`` over processes, ids saved to disk."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    loaded = datasets.load_dataset(
        "parquet",
        data_files=[str(path) for path in sorted(documents.rglob("*.parquet"))],
        split="train",
        columns=["text"],
        cache_dir=str(folder / name),
    )

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": tokenizer(rows["text"], return_attention_mask=False)["input_ids"]}

    mapped = loaded.map(encode, batched=True, num_proc=workers, remove_columns=loaded.column_names)
    column: pa.ChunkedArray = mapped.with_format("arrow")["input_ids"][:]
    return sum(len(chunk.flatten()) for chunk in column.chunks)


def library_texts(size: int) -> list[str]:
    """Python files of the standard library and installed packages, up to ``size`` bytes."""
    texts, found = [], 0
    for key in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_paths()[key]).rglob("*.py")):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            # The end-of-document string would be one token for datasets, text for us.
            if text.strip() and "<|endoftext|>" not in text and len(text) < 1_000_000:
                texts.append(text)
                found += len(text.encode())
            if found >= size:
                return texts
    return texts


def write_documents(folder: Path, texts: list[str]) -> Path:
    """A documents folder of three sources."""
    for index, source in enumerate(SOURCES):
        target = folder / "train" / source
        target.mkdir(parents=True)
        own = texts[index :: len(SOURCES)]
        names = [f"{source}-{n}" for n in range(len(own))]
        table = pa.table(
            {"id": names, "source": [source] * len(own), "text": own, "group": names}
        ).append_column("origin", [names])
        pq.write_table(table, target / "part-00000.parquet", row_group_size=1000)
    counts = {"sources": {source: {} for source in SOURCES}}
    manifest = Manifest("documents", "benchmark", "0", counts=counts, files=records_of(folder))
    write_manifest(folder, manifest)
    return folder


if __name__ == "__main__":
    main()
