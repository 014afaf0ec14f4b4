"""Which masked matrices a plan says may be multiplied sparse, and the FLOPs of masked entries."""

import pytest

from feldspar.core.accelerators import accelerator_named
from feldspar.plan import masked_products
from feldspar.plan.memory import Machine
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.time import SKIPPED_KEY, measured_speed
from feldspar.recipe.load import load_recipe

STATIC = "phases.0.sparsity={type: static, sparsity: 0.75, block: [4, 1]}"
TWO_OF_FOUR = 'phases.0.sparsity={type: static, sparsity: 0.5, pattern: "2:4"}'
HALF_KEPT = "phases.0.sparsity={type: static, sparsity: 0.25}"
H100 = Machine(accelerator_named("H100"))
HERE = Machine()
SHAPE = ("model.d_model=128", "model.n_heads=4", "model.d_ff=344", "model.n_layers=4")


def planned(*overrides: str) -> Plan:
    return plan_recipe(load_recipe("quickstart", [*SHAPE, *overrides]).recipe)


@pytest.mark.parametrize(
    ("overrides", "machine", "reason"),
    [
        ([STATIC], HERE, None),
        ([STATIC, "runtime.masked_products=dense"], HERE, "runtime.masked_products is dense"),
        ([STATIC, "runtime.precision=bfloat16"], HERE, "in float32 only"),
        ([STATIC, "runtime.compile=true"], HERE, "runtime.compile"),
        ([STATIC, "model.d_model=64", "model.d_ff=64"], HERE, "too small"),
        ([STATIC, "model.d_model=64", "runtime.masked_products=sparse"], HERE, None),
        ([HALF_KEPT], HERE, "keep too many entries"),
        ([STATIC], H100, "runtime.compile"),
        ([STATIC, "runtime.compile=false"], H100, "2:4 masks in bfloat16 only"),
        ([TWO_OF_FOUR, "runtime.compile=false"], H100, None),
        (
            [TWO_OF_FOUR, "runtime.compile=false", "runtime.precision=float32"],
            H100,
            "2:4 masks in bfloat16 only",
        ),
    ],
)
def test_the_reason_why_no_matrix_is_multiplied_sparse(
    overrides: list[str],
    machine: Machine,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masked_products, "kernels_refusal", lambda: None)
    (phase, *_) = planned(*overrides).summary(machine)["phases"]
    found = phase["masked_products"]
    assert found["masked"] == 16
    if reason is None:
        assert found["not_realised"] is None
        assert found["possible"] > 0
    else:
        assert reason in found["not_realised"]
        assert found["possible"] == 0


def test_a_machine_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_products, "kernels_refusal", lambda: "no kernels here")
    (phase, *_) = planned(STATIC).summary()["phases"]
    assert phase["masked_products"]["not_realised"] == "no kernels here"


def test_a_dense_phase_has_no_masked_products() -> None:
    assert all("masked_products" not in phase for phase in planned().summary()["phases"])


def test_a_sparse_run_is_measured_by_what_it_executed() -> None:
    """Hours of the same recipe are those of its tokens per second, whatever it skipped."""
    sparse, dense = planned(STATIC), planned()
    (name, *_) = (phase.name for phase in sparse.recipe.phases)
    masked = 0.75 * 6 * sum(row.count for row in sparse.shapes.rows if row.role == "hidden")
    for share in (0.0, 0.5, 1.0):
        record = {"phase": name, "tokens_per_second": 1000.0, SKIPPED_KEY: share * masked}
        speed = measured_speed([record], sparse.recipe, sparse.shapes)
        assert speed.skipped_share == pytest.approx(share)
        itself = sparse.summary(speed=speed)["time"]
        assert itself["tokens_per_second"] == pytest.approx(1000)
        other = dense.summary(speed=speed)["time"]
        flops = dense.flops()["6P+attention"] / dense.timeline.length
        assert other["tokens_per_second"] == pytest.approx(1000 * (1 - share * masked / flops))
