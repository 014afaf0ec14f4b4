"""Deduplicating files: the acceptance oracles on real texts, against brute force."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import networkx
import pytest
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.corpus.clean import cleaned
from feldspar.corpus.files import deduplicate_files
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import prose
from tests.corpus.test_build import content

Jsonl = Callable[[str, list[dict[str, Any]]], Path]


def rows(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist()


def kept_ids(out: Path) -> set[str]:
    return {row["id"] for row in rows(out / "kept")}


def true_edges(texts: list[str]) -> dict[tuple[int, int], float]:
    """All pairs of similarity 0.8 and more, by sets of strings."""
    sets = [{text[i : i + 13] for i in range(len(text) - 12)} for text in map(cleaned, texts)]
    found = {}
    for i, j in combinations(range(len(sets)), 2):
        small, large = sorted((len(sets[i]), len(sets[j])))
        if 10 * small >= 8 * large:
            shared = len(sets[i] & sets[j])
            union = small + large - shared
            if 10 * shared >= 8 * union:
                found[i, j] = shared / union
    return found


def test_precision_and_recall_against_brute_force(
    jsonl: Jsonl, long_texts: list[str], tmp_path: Path
) -> None:
    records = [
        {"id": f"{i:04d}", "source": "ab"[i % 2], "text": text} for i, text in enumerate(long_texts)
    ]
    path = jsonl("in.jsonl", records)
    truth = true_edges(long_texts)
    outs = {}
    for scope in ("global", "local"):
        outs[scope] = tmp_path / scope
        settings = DeduplicateSettings(scope=scope)
        report = deduplicate_files([path], outs[scope], settings, short=0)
        for row in rows(outs[scope] / "edges.parquet"):
            pair = int(row["id_a"]), int(row["id_b"])
            assert row["jaccard"] == pytest.approx(truth[pair], abs=1e-6)
            if scope == "local":
                assert pair[0] % 2 == pair[1] % 2
    found = networkx.Graph(
        [(int(r["id_a"]), int(r["id_b"])) for r in rows(outs["global"] / "edges.parquet")]
    )
    found.add_nodes_from(range(len(records)))
    labels = {
        node: number
        for number, component in enumerate(networkx.connected_components(found))
        for node in component
    }
    joined = sum(labels[i] == labels[j] for i, j in truth)
    assert len(truth) > 100
    assert joined >= 0.995 * len(truth)
    assert kept_ids(outs["global"]) <= kept_ids(outs["local"])
    assert report.sources["a"].dropped_local <= report.sources["a"].dropped_global
    clusters = {}
    for scope, out in outs.items():
        for row in rows(out / "duplicates.parquet"):
            clusters.setdefault(scope, []).append((int(row["id"]), int(row["kept_id"])))
    assert all(labels[loser] == labels[keeper] for loser, keeper in clusters["local"])


def test_equal_cleaned_text_is_one_cluster_and_199_characters_are_too_few(
    jsonl: Jsonl, tmp_path: Path
) -> None:
    text = "".join(chr(97 + (i * i) % 26) for i in range(200))
    texts = {
        "first": text,
        "case": text.upper(),
        "signs": "--" + text[:50] + "!?" + text[50:] + "\n",
        "short": text[:199],
        "blank": text[:199] + " ",
    }
    path = jsonl("x.jsonl", [{"id": k, "source": "s", "text": v} for k, v in texts.items()])
    report = deduplicate_files([path], tmp_path / "out", DeduplicateSettings())
    assert kept_ids(tmp_path / "out") == {"first"}
    assert report.sources["s"].removed["short"].documents == 2
    assert report.sources["s"].removed["exact"].documents == 2


@pytest.mark.parametrize("preset", ["verified", "slimpajama"])
def test_texts_without_shingles_form_no_cluster(jsonl: Jsonl, tmp_path: Path, preset: Any) -> None:
    texts = ["a", "b", "hello", "twelve chars", "Hello!", "thirteen char", "thirteen chas"]
    path = jsonl("x.jsonl", [{"source": "s", "text": text} for text in texts])
    deduplicate_files([path], tmp_path / "out", DeduplicateSettings(preset=preset), short=0)
    assert {row["text"] for row in rows(tmp_path / "out" / "kept")} == set(texts) - {"Hello!"}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, "p"),
        ({"keep": "longest"}, "q"),
        ({"keep": "source_priority", "priority": ("r",)}, "r"),
    ],
)
def test_survivors(jsonl: Jsonl, tmp_path: Path, settings: Any, kept: str) -> None:
    records = [
        {"source": "p", "text": prose(1)},
        {"source": "q", "text": prose(1) + " more"},
        {"source": "r", "text": prose(1)},
    ]
    path = jsonl("x.jsonl", records)
    report = deduplicate_files([path], tmp_path / "out", DeduplicateSettings(**settings))
    assert [row["source"] for row in rows(tmp_path / "out" / "kept")] == [kept]
    assert sum(amount.documents for amount in report.lost_to["q"].values()) == (kept != "q")


def test_same_bytes_for_workers_and_order_of_inputs(jsonl: Jsonl, tmp_path: Path) -> None:
    paths = [
        jsonl(f"in/{name}.jsonl", [{"source": name, "text": prose(i)} for i in range(start, 30)])
        for name, start in (("x", 0), ("y", 20))
    ]
    settings = DeduplicateSettings()
    deduplicate_files(paths, tmp_path / "one", settings, workers=1)
    deduplicate_files([*reversed(paths), tmp_path / "in"], tmp_path / "two", settings, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(kept_ids(tmp_path / "one")) == 30


def test_bad_inputs(jsonl: Jsonl, tmp_path: Path) -> None:
    settings = DeduplicateSettings()
    path = jsonl("x.jsonl", [{"source": "../x", "text": prose(1)}])
    with pytest.raises(UserError, match=r"'\.\./x' cannot name a source"):
        deduplicate_files([path], tmp_path / "out", settings)
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="neither Parquet nor JSON lines"):
        deduplicate_files([tmp_path / "x.csv"], tmp_path / "out", settings)
    path = jsonl("x.jsonl", [{"source": "web", "text": prose(1)}])
    wrong = DeduplicateSettings(keep="source_priority", priority=("wed",))
    with pytest.raises(UserError, match="no source 'wed'; did you mean 'web'"):
        deduplicate_files([path], tmp_path / "out", wrong)
    assert not (tmp_path / "out").exists()
