"""Baselines on the text of an experiment, for a tiny recipe."""

import math
from pathlib import Path

from feldspar.papers.kit.text_baselines import table_beside_baselines, text_baselines
from tests.train.conftest import recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]


def test_a_trigram_gains_by_the_tokens_of_the_run_and_xz_does_not(recipe_file: Path) -> None:
    short, long = (
        text_baselines(str(recipe_file), (f"phases.0.length={steps} steps",)) for steps in (1, 40)
    )
    assert long["trigram"] < short["trigram"]
    assert long["xz"] == short["xz"] > 0


def test_models_and_baselines_stand_in_one_table_by_bits_per_byte() -> None:
    losses = {"wide": 1.5 * math.log(2), "narrow": 2.5 * math.log(2)}
    table = table_beside_baselines(losses, {"trigram": 2.0, "xz": 2.75}, "held-out text")
    assert table.rows == [
        ["wide", "1.5000"],
        ["no model: trigram", "2.0000"],
        ["narrow", "2.5000"],
        ["no model: xz", "2.7500"],
    ]
