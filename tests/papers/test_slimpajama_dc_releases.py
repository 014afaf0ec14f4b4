"""Duplicates across releases: claims that can fail, pages held out in every version, the recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.corpus.build import build_corpus
from feldspar.corpus.store import documents
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.slimpajama_dc.corpora import Repetition, bits_per_byte, common_held_out
from feldspar.papers.slimpajama_dc.experiment import (
    ONCE,
    PAPER,
    RECURRING,
    RELEASES,
    SCOPES,
    data_of,
    over_all_bytes,
    parts_of,
    recurring_groups,
    scope_claim,
)
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.readers import PackageReader
from feldspar.train.run import train
from tests.corpus.conftest import corpus_settings, prose
from tests.papers.conftest import stated
from tests.train.conftest import recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]

REPEATED = {
    "none": Repetition(100, 1000, 2.0, 20.0, 2.0, 0.5),
    "local": Repetition(60, 600, 3.0, 15.0, 3.0, 0.4),
    "global": Repetition(30, 400, 5.0, 5.0, 5.0, 0.2),
}


def by_seed(means: Mapping[str, float]) -> dict[str, list[float]]:
    """Three seeds a thousandth apart."""
    return {scope: [mean + 0.001 * seed for seed in range(3)] for scope, mean in means.items()}


@pytest.mark.parametrize(
    ("figures", "held"),
    [
        ({"none": 2.1, "local": 2.05, "global": 2.0}, [True, True]),
        ({"none": 2.1, "local": 2.0, "global": 2.0}, [False, True]),
        ({"none": 1.9, "local": 2.004, "global": 2.0}, [False, False]),
    ],
)
def test_removal_has_to_help_by_more_than_noise(
    figures: dict[str, float], held: list[bool]
) -> None:
    claims = stated(PAPER)
    bits = by_seed(figures)
    found = [scope_claim(other, bits, REPEATED, claims) for other in ("local", "none")]
    assert [claim.name for claim in found] == ["global-against-local", "global-against-none"]
    assert [claim.borne_out for claim in found] == held
    for claim in found:
        better = Verdict.MECHANISM_SHOWN if claim.borne_out else Verdict.NOT_BORNE_OUT
        assert claim.verdict is better, "another quantity than the paper's is never reproduced"
    assert "33.3% of its bytes are removed" in found[0].ours
    assert "read 5.0 times instead of 20.0" in found[1].ours


def test_parts_are_weighted_by_their_bytes() -> None:
    assert over_all_bytes({"a": [1.0, 2.0], "b": [4.0, 2.0]}, {"a": 200, "b": 100}) == [2.0, 2.0]


def test_the_corpora_differ_in_what_is_removed_and_in_nothing_else() -> None:
    recipes = {
        scope: load_recipe(RELEASES, list(data_of(scope).overrides)).recipe for scope in SCOPES
    }
    kept = []
    for recipe in recipes.values():
        assert recipe.corpus is not None and recipe.shards is not None
        corpus = recipe.corpus.model_dump(exclude={"path", "deduplicate"})
        rest = recipe.model_dump(exclude={"corpus", "shards", "choose"})
        kept.append((corpus, rest))
        assert recipe.corpus.split.decontamination == "near"
    assert kept[0] == kept[1] == kept[2]
    settings = {scope: recipe.corpus.deduplicate for scope, recipe in recipes.items()}
    assert settings["none"] is None
    assert (settings["local"].scope, settings["global"].scope) == ("local", "global")
    for path in ("corpus", "shards"):
        assert len({getattr(recipe, path).path for recipe in recipes.values()}) == 3


def test_each_source_is_a_series_of_releases_whose_pages_the_last_one_has_too() -> None:
    corpus = load_recipe(RELEASES).recipe.corpus
    assert corpus is not None
    readers = {name: source.reader for name, source in corpus.sources.items()}
    last = readers["django-5.2"]
    assert isinstance(last, PackageReader) and len(last.archives) == 1
    for name, reader in readers.items():
        assert isinstance(reader, PackageReader)
        series = name.removeprefix("django-")
        assert all(item.requirement.startswith(f"django=={series}") for item in reader.archives)
        assert set(reader.include) <= set(last.include) and reader.exclude == last.exclude
    archives = [archive for reader in readers.values() for archive in reader.archives]
    assert len({archive.sha256 for archive in archives}) == len(archives) == 13


def corpus_of(folder: Path, rows: Mapping[str, list[dict[str, str]]], **more: Any) -> Path:
    """A corpus with one source a key."""
    sources = {}
    for name, own in rows.items():
        path = folder.with_name(f"{folder.name}-{name}.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in own))
        sources[name] = {"reader": "jsonl", "path": str(path), "group_field": "group"}
    settings = corpus_settings(folder, sources, **{"split": {"validation": 0, "test": 0.4}, **more})
    build_corpus(settings, folder)
    return folder


def page(source: str, number: int, seed: int) -> dict[str, str]:
    return {"id": f"{source}/p{number}", "group": f"p{number}", "text": prose(seed)}


def test_no_version_of_a_held_out_page_is_in_any_train(tmp_path: Path) -> None:
    # Pages 0 to 29 are rewritten in the second release: no near copies, so that they are split
    # apart. 30 to 59 are the same in both; 60 to 79 are in the second only.
    first = [page("a", number, number) for number in range(60)]
    second = [page("b", number, number + (200 if number < 30 else 0)) for number in range(80)]
    rows = {"a": first, "b": second}
    clean = corpus_of(tmp_path / "clean", rows)
    dirty = corpus_of(tmp_path / "dirty", rows, deduplicate=None)
    held_out = common_held_out(clean, [dirty])
    groups = [document.group for document in held_out]
    assert len(set(groups)) == len(groups), "each page once"
    trained = {
        document.group
        for folder in (clean, dirty)
        for source in rows
        for document in documents(folder, "train", source)
    }
    assert not trained & set(groups)
    tested = {d.group for source in rows for d in documents(clean, "test", source)}
    assert tested - set(groups) == tested & trained != set(), "else there was nothing to leave out"
    parts = parts_of(held_out, recurring_groups(dirty))
    numbers = {part: {int(d.group[1:]) for d in pages} for part, pages in parts.items()}
    assert numbers[RECURRING] and max(numbers[RECURRING]) < 60 <= min(numbers[ONCE])
    with pytest.raises(UserError, match="has a version in train"):
        common_held_out(
            clean,
            [corpus_of(tmp_path / "whole", rows, split={"validation": 0, "test": 0})],
        )


@pytest.mark.slow
def test_bits_per_byte_of_a_run_by_part(recipe_file: Path, tmp_path: Path) -> None:
    train(load_recipe(str(recipe_file)), tmp_path / "run")
    texts = {"prose": ["the river runs over old stone"], "noise": ["\u0416" * 40]}
    (found,) = bits_per_byte([tmp_path / "run"], texts)
    assert set(found) == set(texts)
    assert 0 < found["prose"] < found["noise"], "it was trained on such prose"
