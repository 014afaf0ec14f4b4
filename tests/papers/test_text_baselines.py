"""Baselines on the text of an experiment, for a tiny recipe."""

from pathlib import Path

from feldspar.papers.kit.text_baselines import text_baselines
from tests.train.conftest import recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]


def test_a_trigram_gains_by_the_tokens_of_the_run_and_xz_does_not(recipe_file: Path) -> None:
    short, long = (
        text_baselines(str(recipe_file), (f"phases.0.length={steps} steps",)) for steps in (1, 40)
    )
    assert long["trigram"] < short["trigram"]
    assert long["xz"] == short["xz"] > 0
