"""Fitted laws read back: the same predictions, bound to their basis, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.laws.fitted_law import FittedLaw, find_law
from feldspar.plan.laws.law import CEREBRAS_GPT_POINTS, Basis, compute_law, parametric_law
from feldspar.plan.laws.law_fit import fit_law
from feldspar.plan.laws.law_report import law_record

BASIS = Basis("6P", "validation/loss of 1f", "2e")


def written(folder: Path, **changes: Any) -> Path:
    fit = fit_law(CEREBRAS_GPT_POINTS, held_out=2, huber=0.01, basis=BASIS)
    record = law_record(fit) | {"metric": "validation/loss"} | changes
    path = folder / "scaling.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_law_reads_back_as_it_was_fitted(tmp_path: Path, by_folder: bool) -> None:
    path = written(tmp_path)
    law = find_law(str(tmp_path if by_folder else path))
    fit = fit_law(CEREBRAS_GPT_POINTS, held_out=2, huber=0.01, basis=BASIS)
    assert isinstance(law, FittedLaw) and law.metric == "validation/loss"
    assert law.loss(1e23, BASIS) == pytest.approx(fit.predict(1e23))
    assert law.interval(1e23, BASIS) == fit.interval(1e23)
    assert law.fitted_flops == (2.6e18, 2.3e22)
    for ask in (law.loss, law.interval):
        with pytest.raises(UserError, match="holds for another data set"):
            ask(1e23, Basis("6P", "other", "2e"))


@pytest.mark.parametrize(("ratios", "shared"), [((20.0, 20.1), 20.05), ((20.0, 40.0), None)])
def test_tokens_per_parameter_are_those_of_all_sizes(
    tmp_path: Path, ratios: tuple[float, float], shared: float | None
) -> None:
    sizes = [{"tokens": 1000 * ratio, "parameters": 1000} for ratio in ratios]
    law = find_law(str(written(tmp_path, sizes=sizes)))
    assert isinstance(law, FittedLaw)
    assert law.tokens_per_parameter == (None if shared is None else pytest.approx(shared))


def test_published_laws_are_found_by_name() -> None:
    assert find_law("cerebras-gpt") is compute_law("cerebras-gpt")
    assert find_law("chinchilla") is parametric_law("chinchilla")
    with pytest.raises(UserError, match="did you mean"):
        find_law("chinchila")


def test_what_is_no_fitted_law_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_law(str(tmp_path))
    with pytest.raises(UserError, match="fitted to a CSV file"):
        find_law(str(written(tmp_path, basis=None)))
    path = tmp_path / "scaling.json"
    for text in ("{", "[]", "{}", '{"points": [{"flops": 1}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="is no record of a law"):
            find_law(str(path))
