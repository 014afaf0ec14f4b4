"""Recipes written in a test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from tests.train.conftest import feldspar, recipe_file, shards_folder

__all__ = ["feldspar", "plan_text", "recipe_file", "shards_folder"]

MODEL = "{n_layers: 1, d_model: 8, n_heads: 1, d_ff: 8, vocab_size: 16, max_sequence_length: 64}"

PlanText = Callable[..., Plan]


@pytest.fixture
def plan_text(tmp_path: Path) -> PlanText:
    """Plans the recipe whose sections below the model are given as YAML."""

    def plan(text: str, source_tokens: dict[str, int] | None = None, model: str = MODEL) -> Plan:
        path = tmp_path / "recipe.yaml"
        head = f"schema_version: 1\nname: test\nmodel: {model}\n"
        head += "" if "parametrization:" in text else "parametrization: {learning_rate: 1}\n"
        path.write_text(head + text)
        return plan_recipe(load_recipe(str(path)).recipe, source_tokens)

    return plan
