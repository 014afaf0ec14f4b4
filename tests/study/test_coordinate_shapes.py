"""Shapes of open models keep the size of their activations over width under muP."""

from typing import Any

import pytest

from feldspar.recipe.sections.model import ModelSettings
from feldspar.study.coordinate_check import judge
from feldspar.study.coordinate_points import Spread
from tests.study.coordinates import PLAIN, candidate

LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "norm": "rms", "bias": False}
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen 3": LLAMA | {"query_key_norm": "head"},
    "OLMo 2": LLAMA | {"norm": {"type": "rms", "place": "after"}, "query_key_norm": "whole"},
    "Gemma 2": LLAMA
    | {
        "feed_forward": "geglu",
        "norm": {"type": "rms", "place": "both", "unit_offset": True},
        "query_key_norm": "head",
        "attention_soft_cap": 5.0,
        "logit_soft_cap": 3.0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_mup_passes_over_width(changes: dict[str, Any]) -> None:
    kind = ModelSettings.model_validate(PLAIN.model.model_dump(exclude_none=True) | changes)
    widths = {"width": Spread((64, 128, 256), 2)}
    (found,) = judge(kind, [candidate("mup")], widths, workers=1)
    assert found.passed, found.faults
