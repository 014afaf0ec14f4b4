"""The coordinate check of Muon over width: its rates pass, AdamW's power of width does not."""

from dataclasses import replace
from typing import Any

import pytest

from feldspar.core.rows import ModelShapes, Role
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.study import coordinate_check
from feldspar.study.coordinate_check import judge
from feldspar.study.coordinate_points import Spread
from tests.study.coordinates import candidate, recipe

WIDTHS = {"width": Spread((64, 128, 256), 3)}
RATE = 1e-3
RATIOS = {"original": 100.0, "match_rms_adamw": 60.0}
"""Rates at which ten updates move the matrices far, and AdamW moves the embeddings little: what
those change has no power of width, and would hide a wrong one."""


def by_adamws_power(
    settings: ParametrizationSettings, shapes: ModelShapes, *others: Any
) -> ParametrizationTable:
    """Make a table whose hidden matrices have AdamW's rates, divided by the width multiplier."""
    found = table(settings, shapes, *others)
    adamw = table(settings, shapes)
    entries = tuple(
        replace(
            entry,
            learning_rate_multiplier=other.learning_rate_multiplier
            * entry.rule.learning_rate_ratio,
        )
        if entry.role is Role.HIDDEN
        else entry
        for entry, other in zip(found.tensors, adamw.tensors, strict=True)
    )
    return replace(found, tensors=entries)


@pytest.mark.slow
@pytest.mark.parametrize(("adjustment", "ratio"), RATIOS.items())
def test_muons_power_of_width_passes_and_adamws_fails(
    adjustment: str, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(coordinate_check.LEARNING_RATES, "width", RATE)
    settings = f"{{type: muon, adjustment: {adjustment}, learning_rate_ratio: {ratio}}}"
    kind = recipe(f"optimizer={settings}")
    right = candidate("mup", kind)
    wrong = replace(right, name="adamw's", rule=by_adamws_power)
    good, bad = judge(kind.model, [right, wrong], WIDTHS, workers=1)
    assert good.passed, [str(bound.measure) for bound in good.faults]
    assert not bad.passed
    seen = {str(bound.measure) for bound in bad.faults}
    assert {"residual stream change at step 1", "residual stream change at step 5"} <= seen
