"""The time that sparse products save, as a plan predicts it from measurements."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.cli.main import run_with
from feldspar.sparsity import choice
from feldspar.sparsity.choice import Kind, choose_products
from feldspar.sparsity.kernels.compiled import compiled
from feldspar.train.step_timing import StepTiming
from tests.train.sparsity.conftest import BASE, DENSE_LATER, drawn

pytestmark = pytest.mark.skipif(compiled() is None, reason="no sparse products on this machine")
ONE_KIND = (
    "phases.0.sparsity={type: static, sparsity: 0.75, block: [4, 1], "
    "targets: ['*.feed_forward.input.*']}"
)
SPARSE = "runtime.masked_products=sparse"


def planned(
    recipe: Path, capsys: pytest.CaptureFixture[str], *overrides: str, code: int = 0
) -> dict[str, Any]:
    arguments = ["plan", str(recipe), *BASE, *overrides, "--measure-products", "--json"]
    assert run_with(arguments) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else {"error": err}


def measured(values: dict[str, Any]) -> dict[str, Any]:
    return values["phases"][0]["masked_products"]["measured"]


def test_a_step_takes_less_by_what_its_products_save(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    values = planned(recipe_file, capsys, ONE_KIND, SPARSE, *DENSE_LATER)
    found = measured(values)
    (product,) = found["products"]
    assert product["matrices"] == found["sparse"] == 2
    assert product["sparse"] is True
    assert product["kept"] * 4 == product["rows"] * product["columns"]
    assert found["realised"] == 1
    step = found["step"]
    saved = step["masked_share"] * (1 - 1 / product["times_as_fast"])
    assert step["sparse_seconds"] == pytest.approx(step["dense_seconds"] * (1 - saved))
    assert step["times_as_fast"] == pytest.approx(1 / (1 - saved))
    assert step["tokens"] == 128
    assert "masked_products" not in values["phases"][1]
    assert torch.get_num_threads() == threads


def test_seconds_follow_from_those_of_one_and_two_blocks() -> None:
    timing = StepTiming(tokens=100, passes=(3.0, 5.0), update=(0.5, 0.75))
    assert timing.seconds(1, 100) == 3.5
    assert timing.seconds(4, 100) == (3 + 3 * 2) + (0.5 + 3 * 0.25)
    assert timing.seconds(4, 200) == 2 * (3 + 3 * 2) + (0.5 + 3 * 0.25)


@pytest.mark.parametrize(
    "why", ["phases.0.trainable=[hidden]", "runtime.masked_products=dense"], ids=["part", "dense"]
)
def test_no_step_is_predicted(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    how = () if "dense" in why else (SPARSE,)
    found = measured(planned(recipe_file, capsys, ONE_KIND, *how, why, *DENSE_LATER))
    assert found["step"] is None
    assert bool(found["sparse"]) is ("dense" not in why)


def test_a_plan_measures_the_masks_of_the_run_by_the_rule_of_the_run(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SMALLEST", 0)
    sparsity = "phases.0.sparsity={type: static, sparsity: 0.75, distribution: erk}"
    found = measured(planned(recipe_file, capsys, sparsity, *DENSE_LATER))
    masks = drawn(recipe_file, sparsity).tensors
    kinds = {name: Kind.of(mask) for name, mask in masks.items()}
    decided = choose_products(
        kinds, masks.__getitem__, "auto", 128, torch.float32, torch.device("cpu")
    )
    assert [(p["rows"], p["columns"], p["kept"]) for p in found["products"]] == [
        (kind.rows, kind.columns, kind.kept) for kind in decided.speeds
    ]
    for product in found["products"]:
        assert product["sparse"] is (product["times_as_fast"] > choice.WORTH)


def test_text_says_what_is_realised(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(recipe_file), *BASE, ONE_KIND, *DENSE_LATER, "--measure-products"]
    assert run_with([*arguments, SPARSE]) == 0
    text = capsys.readouterr().out
    assert "by ledger (100% of the FLOPs that masks save are realised here)" in text
    assert "sparse products for 2 of 2 masked matrices (measured here, " in text
    assert "a step of 128 tokens takes" in text
    assert run_with(arguments) == 0
    assert "(FLOPs not realised: the masked matrices are too small" in capsys.readouterr().out


def test_bad_questions(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no phase has masks" in planned(recipe_file, capsys, code=2)["error"]
    arguments = ["plan", str(recipe_file), ONE_KIND, "--measure-products", "--device", "H100"]
    assert run_with(arguments) == 2
    assert "measures this machine, not the accelerator" in capsys.readouterr().err
