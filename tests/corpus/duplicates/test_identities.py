"""What must hold of every deduplication, whatever the corpus and the choices."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.report import Report
from feldspar.recipe.sections.corpus import DeduplicateSettings, HighestValue
from tests.corpus.conftest import prose

SOURCES = ("web", "books", "code")
DOCUMENT = st.tuples(
    st.integers(0, 3),  # which text
    st.integers(0, 6),  # how many of its 30 words are another's: from 0.8 down to 0.4 alike
    st.sampled_from(SOURCES),
    st.booleans(),  # upper case
    st.one_of(st.none(), st.integers(0, 3)),  # quality
)
CORPUS = st.lists(DOCUMENT, min_size=1, max_size=14)
KEEPS: list[dict[str, Any]] = [
    {"keep": "first"},
    {"keep": "longest"},
    {"keep": "source_priority", "priority": ("code",)},
    {"keep": HighestValue(field="score")},
]


def record(number: int, document: tuple) -> dict[str, Any]:
    text, edits, source, upper, score = document
    words = prose(text, 30).split()
    for place in range(edits):
        words[7 * place % 30] = prose(1000 + text * 100 + number % 3 + place, 1)
    joined = " ".join(words)
    return {
        "id": f"{number:03d}",
        "source": source,
        "text": joined.upper() if upper else joined,
        "score": score,
    }


def run(folder: Path, records: list[dict], given: dict[str, Any]) -> tuple[Report, Path]:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    return deduplicate_files([path], out, DeduplicateSettings(**given), short=0), out


def kept(out: Path) -> set[str]:
    return set(parquet.read_table(out / "kept").column("id").to_pylist())


def check_sums(report: Report, records: list[dict]) -> None:
    for source, counts in report.sources.items():
        own = [each for each in records if each["source"] == source]
        assert counts.read.documents == len(own)
        assert counts.read.bytes == sum(len(each["text"]) for each in own)
        for kind in ("documents", "bytes"):
            parts = [getattr(each, kind) for each in (*counts.removed.values(), counts.kept)]
            assert getattr(counts.read, kind) == sum(parts)
            lost = sum(getattr(amount, kind) for amount in report.lost_to[source].values())
            assert lost == sum(
                getattr(counts.removed[reason], kind) for reason in ("exact", "near")
            )
        for other in report.sources:
            assert report.pairs[source][other] == report.pairs[other][source]
            met, back = report.duplicated[source][other], report.duplicated[other][source]
            assert (met.documents > 0) == (back.documents > 0)
            assert met.documents <= counts.read.documents
            assert report.lost_to[source][other].documents == 0 or (
                report.duplicated[source][source].documents or report.dropped
            )
    sizes = {int(size): count for size, count in report.cluster_sizes.items()}
    assert sum(size * count for size, count in sizes.items()) == len(records)
    assert sum(sizes.values()) == len(records) - report.dropped


@pytest.mark.parametrize("keep", KEEPS, ids=lambda keep: str(keep["keep"]))
@settings(max_examples=4, deadline=None)
@given(corpus=CORPUS)
def test_scopes_and_sums(
    keep: dict[str, Any], corpus: list[tuple], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [record(number, document) for number, document in enumerate(corpus)]
    if "priority" in keep:
        records[0]["source"] = "code"
    records[0]["score"] = 1.5
    folder = tmp_path_factory.mktemp("identities")
    survivors = {}
    for scope in ("global", "local"):
        report, out = run(folder, records, {"scope": scope, **keep})
        check_sums(report, records)
        survivors[scope] = kept(out)
        for row in parquet.read_table(out / "edges.parquet").to_pylist():
            assert row["jaccard"] >= 0.8
    assert survivors["global"] <= survivors["local"]


@settings(max_examples=4, deadline=None)
@given(corpus=CORPUS, keep=st.sampled_from(KEEPS[:2]))
def test_representatives_drop_only_what_is_like_them(
    corpus: list[tuple], keep: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [record(number, document) for number, document in enumerate(corpus)]
    folder = tmp_path_factory.mktemp("representatives")
    report, out = run(folder, records, {"cluster": "representative", **keep})
    check_sums(report, records)
    assert report.below_threshold in (0.0, None)
    for row in parquet.read_table(out / "duplicates.parquet").to_pylist():
        assert row["jaccard"] >= 0.8
        assert row["kept_id"] in kept(out)
    components, _ = run(folder, records, keep)
    assert report.dropped <= components.dropped
