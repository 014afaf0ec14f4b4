"""Hours: from a stated speed, a data sheet, and the records of a run."""

import pytest

from feldspar.core.accelerators import accelerator_named
from feldspar.core.errors import UserError
from feldspar.plan.memory import Machine
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.time import data_sheet_speed, measured_speed, stated_speed
from feldspar.recipe.load import load_recipe

A100 = accelerator_named("A100")


def paper(name: str, *overrides: str) -> Plan:
    return plan_recipe(load_recipe(name, list(overrides)).recipe)


def test_hours_of_stated_tokens_per_second() -> None:
    planned = paper("btlm/paper")
    time = planned.summary(Machine(devices=16), stated_speed(1e6))["time"]
    assert time["hours"] == pytest.approx(627_714_293_760 / 1e6 / 3600)
    assert time["device_hours"] == pytest.approx(16 * time["hours"])
    assert [phase["name"] for phase in time["phases"]] == ["2k", "8k"]
    assert time["phases"][1]["hours"] == pytest.approx(156_928_573_440 / 1e6 / 3600)
    assert time["tokens_per_second"] == pytest.approx(1e6)


def test_hours_are_flops_over_peak_utilisation_and_devices() -> None:
    planned = paper("btlm/paper")
    speed = data_sheet_speed(A100, 32, 0.4, planned.recipe)
    summary = planned.summary(Machine(A100, 32), speed)
    expected = summary["flops"]["6P+attention"] / (312e12 * 0.4 * 32) / 3600
    assert summary["time"]["hours"] == pytest.approx(expected)
    assert sum(phase["hours"] for phase in summary["time"]["phases"]) == pytest.approx(expected)
    assert summary["time"]["flops_per_second"] == pytest.approx(312e12 * 0.4 * 32)
    short, long = summary["time"]["phases"]
    tokens = [phase.length for phase in planned.timeline.phases]
    assert long["hours"] / tokens[1] > short["hours"] / tokens[0], "longer contexts cost more"


def test_no_speed_no_hours() -> None:
    assert paper("quickstart").summary()["time"] is None


def test_masks_save_no_time() -> None:
    speed = data_sheet_speed(A100, 1, 0.4, paper("cerebras-gpt/paper").recipe)
    sparse = "phases.0.sparsity={type: static, sparsity: 0.75}"
    hours = [
        paper("cerebras-gpt/paper", *overrides).summary(speed=speed)["time"]["hours"]
        for overrides in ([], [sparse])
    ]
    assert hours[0] == hours[1]


def test_a_measured_run_tells_of_another_size() -> None:
    ran, planned = paper("cerebras-gpt/small"), paper("cerebras-gpt/small", "model.n_layers=8")
    name = ran.recipe.phases[0].name
    records = [{"phase": name, "tokens_per_second": rate} for rate in (10.0, 900.0, 1000.0, 1100.0)]
    speed = measured_speed(records[1:], ran.recipe, ran.shapes)
    itself = ran.summary(speed=speed)["time"]
    assert itself["tokens_per_second"] == pytest.approx(1000)
    assert measured_speed(records, ran.recipe, ran.shapes).source == "measured over 4 steps"
    deeper = planned.summary(speed=speed)["time"]
    work = [item.summary()["flops"]["6P+attention"] for item in (ran, planned)]
    assert deeper["hours"] / itself["hours"] == pytest.approx(work[1] / work[0])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_is_a_number_above_0(rate: float) -> None:
    with pytest.raises(UserError, match="--tokens-per-second: must be above 0"):
        stated_speed(rate)


@pytest.mark.parametrize("share", [0.0, -0.4, 1.5, 40.0, float("nan")])
def test_a_utilisation_is_a_share(share: float) -> None:
    with pytest.raises(UserError, match="--utilisation: must be a share of the peak") as caught:
        data_sheet_speed(A100, 1, share, paper("quickstart").recipe)
    assert ("write 0.4 for 40 %" in str(caught.value)) is (share == 40)


def test_a_data_sheet_of_bfloat16_tells_nothing_of_float32() -> None:
    recipe = paper("quickstart", "runtime.precision=float32").recipe
    with pytest.raises(UserError, match=r"runtime\.precision: float32"):
        data_sheet_speed(A100, 1, 0.4, recipe)


def test_records_of_another_recipe_are_refused() -> None:
    planned = paper("quickstart")
    with pytest.raises(UserError, match="has no phase 'other'"):
        measured_speed(
            [{"phase": "other", "tokens_per_second": 1.0}], planned.recipe, planned.shapes
        )
