"""One tool finds the duplicates of one corpus in a process of its own.

    python benchmarks/contenders/duplicates.py TOOL CORPUS.parquet FOUND.npz [--workers 2]

From Parquet to components: reading, cleaning, shingles, sketches, candidates, labels. Pairs and
labels go into FOUND.npz, what it cost to the output as JSON. Peers read in batches and get our fast
cleaning and union-find; they use 128 values in 16 bands of 8, of which a pair of similarity 0.8
meets in one with probability 0.947. Each keeps to the interface that its documentation shows.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from feldspar.corpus.clean import cleaned
from feldspar.corpus.duplicates.components import component_labels

CHARACTERS = 13
THRESHOLD = 0.8
VALUES, BANDS, ROWS = 128, 16, 8
BATCH = 512

Found = tuple[np.ndarray | None, np.ndarray]
"""Pairs (n, 2) of rows of the corpus, None where a tool tells components only; a label each."""


def main() -> None:
    """Run one tool, and tell what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=["feldspar", *PEERS])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--memory", default="256MB", help="feldspar's budget")
    parser.add_argument("--workers", type=int, default=1, help="feldspar's processes")
    options = parser.parse_args()
    try:
        if options.tool == "feldspar":
            prepared = feldspar(options.memory, options.workers)
        else:
            prepared = PEERS[options.tool]()
    except ImportError as error:
        print(json.dumps({"absent": str(error)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        wall, used = time.perf_counter(), sum(os.times()[:4])
        read = prepared(options.corpus, Path(folder))
        cost = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": sum(os.times()[:4]) - used,
            "peak_bytes": peak_bytes(),
        }
        pairs, labels = read()
    if pairs is None:
        np.savez(options.found, labels=labels)
    else:
        np.savez(options.found, labels=labels, pairs=pairs)
    print(json.dumps(cost))


def peak_bytes() -> int:
    """Of this process. Not getrusage: its maximum outlives exec, so it may be the parent's."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def batches(corpus: Path) -> Iterator[list[str]]:
    """The cleaned texts, a few hundred at a time."""
    with pq.ParquetFile(corpus) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
            yield [cleaned(text) for text in batch.column(0).to_pylist()]


def shingles(text: str) -> list[str]:
    """All runs of 13 characters, repeats too."""
    return [text[start : start + CHARACTERS] for start in range(len(text) - CHARACTERS + 1)]


def joined(pairs: np.ndarray, documents: int) -> Callable[[], Found]:
    """The result of a tool that proposes pairs; labels are made within the time."""
    labels = component_labels(documents, pairs)
    return lambda: (pairs, labels)


def pairs_of_queries(answers: list[list[int]]) -> np.ndarray:
    """``answers[i]`` are the candidates of document i, itself among them."""
    counts = np.fromiter(map(len, answers), np.int64, len(answers))
    others = np.fromiter(chain.from_iterable(answers), np.int64, int(counts.sum()))
    own = np.repeat(np.arange(len(answers)), counts)
    return np.stack([own, others], axis=1)[own < others]


Prepared = Callable[[Path, Path], Callable[[], Found]]


def feldspar(memory: str, workers: int) -> Prepared:
    """The public function behind ``feldspar corpus dedup``, with all that it writes."""
    from feldspar.corpus.files import deduplicate_files
    from feldspar.recipe.sections.corpus import DeduplicateSettings

    settings = DeduplicateSettings.model_validate({"memory": memory})

    def run(corpus: Path, folder: Path) -> Callable[[], Found]:
        out = folder / "out"
        deduplicate_files([corpus], out, settings, workers=workers)

        def read() -> Found:
            edges = pq.read_table(out / "edges.parquet", columns=["id_a", "id_b"])
            dropped = pq.read_table(out / "duplicates.parquet", columns=["id", "kept_id"])
            labels = np.arange(pq.read_metadata(corpus).num_rows)
            labels[keys(dropped.column("id"))] = keys(dropped.column("kept_id"))
            pairs = np.stack([keys(edges.column("id_a")), keys(edges.column("id_b"))], axis=1)
            return pairs, labels

        def keys(column: Any) -> np.ndarray:
            return np.array([int(value) for value in column.to_pylist()], np.int64)

        return read

    return run


def datasketch() -> Prepared:
    """MinHash with ``update_batch``, MinHashLSH."""
    from datasketch import MinHash, MinHashLSH

    def run(corpus: Path, _: Path) -> Callable[[], Found]:
        index = MinHashLSH(num_perm=VALUES, params=(BANDS, ROWS))
        sketches = []
        for texts in batches(corpus):
            for text in texts:
                sketch = MinHash(num_perm=VALUES, seed=1)
                sketch.update_batch([run.encode() for run in set(shingles(text))])
                index.insert(len(sketches), sketch, check_duplication=False)
                sketches.append(sketch)
        answers = [index.query(sketch) for sketch in sketches]
        return joined(pairs_of_queries(answers), len(answers))

    return run


def rensa(checked: bool = False) -> Prepared:
    """RMinHash from lists of shingles, RMinHashLSH; ``checked``: and sets of each pair after it.

    Its rho sketch is left out: it tells which rows have a duplicate, not which one.
    """
    from rensa import RMinHash, RMinHashLSH

    def run(corpus: Path, _: Path) -> Callable[[], Found]:
        index = RMinHashLSH(THRESHOLD, VALUES, BANDS)
        sketches = []
        for texts in batches(corpus):
            sketches += RMinHash.from_token_sets(map(shingles, texts), VALUES, 42)
        index.insert_many(sketches)
        pairs = pairs_of_queries(index.query_all(sketches))
        return joined(similar(corpus, pairs) if checked else pairs, len(sketches))

    return run


def similar(corpus: Path, pairs: np.ndarray) -> np.ndarray:
    """The pairs that reach the threshold, by sets of shingles, a component in memory at a time."""
    wanted = set(pairs.ravel().tolist())
    texts: dict[int, str] = {}
    for number, text in enumerate(chain.from_iterable(batches(corpus))):
        if number in wanted:
            texts[number] = text
    labels = component_labels(max(wanted, default=0) + 1, pairs)[pairs[:, 0]]
    kept = []
    order = np.argsort(labels, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        sets = {number: set(shingles(texts[number])) for number in np.unique(pairs[part]).tolist()}
        for position, (one, other) in zip(part.tolist(), pairs[part].tolist(), strict=True):
            first, second = sets[one], sets[other]
            shared = len(first & second)
            if shared >= THRESHOLD * (len(first) + len(second) - shared):
                kept.append(position)
    return pairs[np.array(kept, np.int64)]


def gaoya() -> Prepared:
    """Its own runs of characters; queries keep what it estimates at 0.7 or more."""
    from gaoya.minhash import MinHashStringIndex

    def run(corpus: Path, _: Path) -> Callable[[], Found]:
        index = MinHashStringIndex(
            32, 0.7, BANDS, ROWS, None, "char", False, (CHARACTERS, CHARACTERS), "vec"
        )
        number = 0
        for texts in batches(corpus):
            for text in texts:
                index.insert_document(number, text)
                number += 1
        answers = [index.query(text) for texts in batches(corpus) for text in texts]
        return joined(pairs_of_queries(answers), number)

    return run


def datatrove() -> Prepared:
    """Its three steps, its shingles replaced by ours; groups come as chains, not as pairs."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.logging import logger

    logger.remove()
    minhash.load_word_tokenizer = lambda language: None  # would load spaCy, and be left unused

    class Characters(minhash.MinhashDedupSignature):
        def get_shingles(self, text: str) -> np.ndarray:
            hashes = [self._hash_func(run) for run in set(shingles(cleaned(text)))]
            return np.array(hashes, np.uint64).reshape(-1, 1)

    config = minhash.MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS)

    def run(corpus: Path, folder: Path) -> Callable[[], Found]:
        documents = pq.read_metadata(corpus).num_rows
        names = [str(folder / name) for name in ("signatures", "pairs", "clusters")]
        texts = chain.from_iterable(
            batch.column(0).to_pylist()
            for batch in pq.ParquetFile(corpus).iter_batches(batch_size=BATCH, columns=["text"])
        )
        Characters(names[0], config).run(Document(text=text, id="") for text in texts)
        for band in range(BANDS):
            minhash.MinhashDedupBuckets(names[0], names[1], config=config).run(None, band, BANDS)
        minhash.MinhashDedupCluster(names[1], names[2], config, save_cluster_id=True).run(None)

        def read() -> Found:
            labels = np.arange(documents)
            for path in Path(names[2]).glob("*.clusters"):
                rows = np.fromfile(path, "<u4").reshape(-1, 2)
                labels[rows[:, 0]] = documents + rows[:, 1]
            return None, labels

        return read

    return run


def text_dedup() -> Prepared:
    """The whole command on **word** 5-grams: it has no others, hence answers another question."""
    from text_dedup import minhash
    from text_dedup.utils import IOArgs, MetaArgs, MinHashArgs

    def run(corpus: Path, folder: Path) -> Callable[[], Found]:
        callback: Any = minhash.main.callback
        callback(
            io_args=IOArgs(
                path="parquet",
                data_files=str(corpus),
                split="train",
                cache_dir=str(folder / "cache"),
                output=str(folder / "kept"),
                debug=True,
                num_proc=1,
            ),
            meta_args=MetaArgs(column="text"),
            minhash_args=MinHashArgs(
                num_perm=VALUES, threshold=THRESHOLD, b=BANDS, r=ROWS, hash_func="xxh3"
            ),
        )
        labels = np.array(
            [minhash.uf.find(number) for number in range(pq.read_metadata(corpus).num_rows)]
        )
        return lambda: (None, labels)

    return run


PEERS: dict[str, Callable[[], Prepared]] = {
    "datasketch": datasketch,
    "rensa": rensa,
    "rensa-checked": lambda: rensa(checked=True),
    "gaoya": gaoya,
    "datatrove": datatrove,
    "text-dedup": text_dedup,
}


if __name__ == "__main__":
    main()
