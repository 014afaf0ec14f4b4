"""The split: exact buckets, shares, whole groups and whole clusters."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.archives import cached_archive
from feldspar.corpus.readers.sources import read_source
from feldspar.corpus.split import assign, bucket, side
from feldspar.recipe.sections.corpus import SourceSettings, SplitSettings
from tests.corpus.conftest import corpus_settings

DJANGO = {
    "django==4.2.16": "6f1616c2786c408ce86ab7e10f792b8f15742f7b7b7460243929cb371e7f1dad",
    "django==5.1.4": "de450c09e91879fa5a307f696e57c851955c910a438a35e6b4c895e86bedc82a",
    "django==5.2": "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89",
}


def test_buckets_and_sides() -> None:
    digest = hashlib.sha256(b"docs\0a.txt").hexdigest()
    assert bucket("docs", "a.txt", 1000) == int(digest[:8], 16) % 1000
    shares = SplitSettings(test=0.05, validation=0.1)
    expected = ["test", "test", "validation", "validation", "train", "train"]
    assert [side(number, shares) for number in (0, 49, 50, 149, 150, 999)] == expected
    assert side(0, SplitSettings(test=0.0, validation=0.0)) == "train"


def test_groups_and_clusters_are_whole() -> None:
    count = 400
    groups = [f"g{i // 2}" for i in range(count)]
    clusters = np.arange(count)
    clusters[399] = 0
    settings = SplitSettings(test=0.2, validation=0.2)
    sides = assign(["s"] * count, groups, clusters, np.ones(count, bool), settings)
    assert sides[0::2] == sides[1::2]
    assert sides[0] == sides[399]
    assert set(sides) == {"train", "validation", "test"}


def sides_of(
    groups: list[str],
    settings: SplitSettings,
    clusters: list[int] | None = None,
    kept: list[bool] | None = None,
    source: str = "s",
) -> list[str]:
    """The sides of one source's documents."""
    count = len(groups)
    return assign(
        [source] * count,
        groups,
        np.arange(count) if clusters is None else np.array(clusters),
        np.ones(count, bool) if kept is None else np.array(kept),
        settings,
    )


@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 200), st.integers(0, 200))
def test_each_source_has_held_out_text(first: int, count: int, test: int, validation: int) -> None:
    settings = SplitSettings(test=test / 1000, validation=validation / 1000)
    groups = [f"g{number}" for number in range(first, first + count)]
    sides = sides_of(groups, settings)
    by_bucket = [side(bucket("s", group, settings.buckets), settings) for group in groups]
    assert by_bucket.count("train") == 0 or "train" in sides
    wanted = [name for name in ("test", "validation") if getattr(settings, name)]
    for name in wanted if count >= 4 and by_bucket.count("train") > len(wanted) else ():
        assert name in sides
    for name in ("test", "validation"):
        if name in by_bucket:
            assert {g for g, own in zip(groups, by_bucket, strict=True) if own == name} == {
                g for g, own in zip(groups, sides, strict=True) if own == name
            }, "nothing is added to a side that has text"
        else:
            assert sides.count(name) <= 1


def test_the_next_group_by_bucket_is_held_out() -> None:
    settings = SplitSettings(test=0.001, validation=0.001)
    groups = [f"g{number}" for number in range(12)]
    order = sorted(groups, key=lambda group: bucket("s", group, 1000))
    sides = dict(zip(groups, sides_of(groups, settings), strict=True))
    assert (sides[order[0]], sides[order[1]]) == ("test", "validation")
    assert {sides[group] for group in order[2:]} == {"train"}
    assert sides_of(groups[::-1], settings) == [sides[group] for group in groups[::-1]]


def test_what_is_held_out_is_kept_and_not_most_of_a_source() -> None:
    settings = SplitSettings(test=0.001, validation=0)
    groups = [f"g{number}" for number in range(6)]
    lowest = min(groups, key=lambda group: bucket("s", group, 1000))
    place = groups.index(lowest)
    kept = [number != place for number in range(6)]
    assert sides_of(groups, settings)[place] == "test"
    removed = sides_of(groups, settings, kept=kept)
    assert removed[place] == "train" and removed.count("test") == 1
    most = [*groups, *[lowest] * 7]
    assert sides_of(most, settings)[place] == "train"
    assert sides_of(groups, settings, clusters=[0] * 6) == ["train"] * 6
    assert sides_of(["only"], settings) == ["train"]


def test_a_source_out_of_distribution_is_held_out_whole() -> None:
    settings = SplitSettings(test=0.1, validation=0.1, out_of_distribution=("far",))
    groups = [f"g{number}" for number in range(40)]
    sources = ["near"] * 40 + ["far"] * 40
    clusters = np.arange(80)
    alone = assign(sources, groups * 2, clusters, np.ones(80, bool), settings)
    inside = SplitSettings(test=0.1, validation=0.1)
    assert alone[:40] == assign(sources, groups * 2, clusters, np.ones(80, bool), inside)[:40]
    assert alone[40:] == ["test"] * 40
    copied = alone.index("train")
    clusters[40] = copied  # a copy in another source follows
    assert assign(sources, groups * 2, clusters, np.ones(80, bool), settings)[copied] == "test"


@pytest.mark.parametrize(("held", "said"), [(["c"], "no source 'c'"), (["a", "b"], "all sources")])
def test_sources_out_of_distribution_exist_and_leave_some(held: list[str], said: str) -> None:
    sources = {name: {"reader": "jsonl", "path": name} for name in "ab"}
    with pytest.raises(ValidationError, match=f"split.out_of_distribution: .*{said}"):
        corpus_settings(Path("out"), sources, split={"out_of_distribution": held})


def test_shares_below_thousandths_have_buckets_of_their_own() -> None:
    published = SplitSettings(test=0.0017, validation=0.00085)
    assert (published.buckets, SplitSettings(test=0.017).buckets) == (100_000, 1000)
    expected = ["test", "validation", "validation", "train"]
    assert [side(number, published) for number in (169, 170, 254, 255)] == expected
    groups = [f"g{number}" for number in range(4000)]
    fine = [side(bucket("s", group, 100_000), published) for group in groups]
    assert sides_of(groups, published) == fine
    assert {"test", "validation"} < set(fine)
    with pytest.raises(ValidationError, match="five decimals"):
        SplitSettings(test=0.000017)


@pytest.mark.slow
def test_the_measured_split_of_django_docs() -> None:
    archives = [{"requirement": name, "sha256": digest} for name, digest in DJANGO.items()]
    reader = {"type": "package", "archives": archives, "include": ["docs/**/*.txt"]}
    settings = SourceSettings.model_validate({"reader": reader}, strict=False)
    assert settings.reader.type == "package"
    if any(cached_archive(archive) is None for archive in settings.reader.archives):
        pytest.skip("the archives are not in the cache")
    read = read_source("django-docs", settings, Tolerance(), offline=True)
    documents = [document for document in read if len(document.text) >= 200]
    sides = assign(
        [document.source for document in documents],
        [document.group for document in documents],
        np.arange(len(documents)),
        np.ones(len(documents), bool),
        SplitSettings(),
    )
    sizes = {
        split: (
            sides.count(split),
            sum(
                len(d.text.encode())
                for d, own in zip(documents, sides, strict=True)
                if own == split
            ),
        )
        for split in set(sides)
    }
    assert len({document.text for document in documents}) == 930
    assert sizes == {
        "train": (1599, 15_355_226),
        "validation": (84, 839_686),
        "test": (106, 1_543_401),
    }
