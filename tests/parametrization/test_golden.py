"""Numbers that the papers print or imply, and the identities that hold between tables.

The five muP sizes of Cerebras-GPT and BTLM's accounting stand in tests/plan/test_golden.py, which
plans their recipes.
"""

import itertools

import pytest

from feldspar.core.rows import ModelShapes, Role
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings


def shapes(**changes: object) -> ModelShapes:
    values = {
        "n_layers": 10,
        "d_model": 2048,
        "n_heads": 32,
        "d_ff": 5461,
        "vocab_size": 50257,
        "max_sequence_length": 2048,
        "positions": "alibi",
        "feed_forward": "swiglu",
    }
    return model_shapes(ModelSettings.model_validate(values | changes))


def supar(**changes: object) -> ParametrizationSettings:
    """SmuPar's tuned set (2405.15743, table 3)."""
    values = {
        "type": "supar",
        "base_d_model": 256,
        "base_d_ff": 5461 / 8,
        "init": "truncated_normal",
        "init_std": 0.08665602,
        "learning_rate": 1.62e-2,
        "embedding_multiplier": 9.1705,
        "output_multiplier": 1.0951835,
    }
    return ParametrizationSettings.model_validate(values | changes)


def uniform(model: ModelShapes, density: float) -> dict[str, float]:
    """One density for all attention and feed-forward matrices."""
    return {row.name: density for row in model.rows if row.role is Role.HIDDEN}


def of_role(found: ParametrizationTable, role: Role) -> set[tuple[float, float]]:
    """The pairs of initial standard deviation and learning-rate multiplier of a role's tensors."""
    return {
        (entry.init_std, entry.learning_rate_multiplier)
        for entry in found.tensors
        if entry.role is role
    }


def test_smupar_610m_at_one_part_in_128() -> None:
    model = shapes()
    assert model.parameters == 606_519_972
    assert 20 * model.parameters // (504 * 2048) == 11_752  # the paper's number of steps
    found = table(supar(), model, uniform(model, 2**-7))
    block = {
        name: found.entry(f"blocks.9.{name}.weight")
        for name in (
            "attention.query_key_value",
            "attention.output",
            "feed_forward.input",
            "feed_forward.output",
        )
    }
    for name, entry in block.items():
        std = 0.0775075 if name.endswith("output") else 0.3466241
        assert entry.init_std == pytest.approx(std, abs=5e-8)
        assert 1.62e-2 * entry.learning_rate_multiplier == pytest.approx(0.2592, rel=1e-12)
    assert of_role(found, Role.EMBEDDING) == {(0.08665602, 1)}
    assert found.forward.output == pytest.approx(0.1368979, abs=5e-8)
    assert (found.forward.embedding, found.forward.residual) == (9.1705, 1)
    assert found.forward.attention == 1 / 64


def test_smupar_at_one_part_in_8_has_the_dense_proxys_numbers() -> None:
    proxy = shapes(n_layers=24, d_model=256, n_heads=4, d_ff=682)
    dense = table(supar(base_d_ff=682.0), proxy)
    sparse = table(supar(), shapes(), uniform(shapes(), 1 / 8))
    wide = "blocks.0.attention.query_key_value.weight", "blocks.0.feed_forward.input.weight"
    for name in wide:
        assert sparse.entry(name).init_std == dense.entry(name).init_std == 0.08665602
        assert sparse.entry(name).learning_rate_multiplier == 1


@pytest.mark.parametrize(
    ("width", "density", "base_density"),
    [(512, 0.5, 1.0), (1024, 0.25, 1.0), (2048, 0.125, 1.0), (1024, 0.125, 0.5)],
)
def test_where_width_times_density_is_constant_so_is_the_table(
    width: int, density: float, base_density: float
) -> None:
    """Iso-WPN: muP and SmuPar differ by a constant along it; with this base they have no factor."""
    model = shapes(d_model=width, d_ff=3 * width, n_heads=width // 64)
    base = {"base_d_ff": 768.0, "base_density": base_density}
    found = table(supar(**base), model, uniform(model, density))
    block_output = 0.08665602 / 20**0.5
    assert {pair[1] for pair in of_role(found, Role.HIDDEN)} == {1}  # exactly
    assert {pair[0] for pair in of_role(found, Role.HIDDEN)} == {0.08665602, block_output}


@pytest.mark.parametrize(
    ("exponent", "residual", "hidden", "vector", "epsilon"),
    [(1.0, 1 / 16, 1 / 4, 1.0, 1 / 64), (0.5, 1 / 4, 1 / 16, 1 / 4, 1 / 16)],
)
@pytest.mark.parametrize("kind", ["completep", "supar"])
def test_completep_at_32_blocks(
    kind: str, exponent: float, residual: float, hidden: float, vector: float, epsilon: float
) -> None:
    """2505.01618, table 1, from 2 blocks of width 256; on supar it composes with density."""
    model = shapes(n_layers=32, d_model=1024, n_heads=16, d_ff=4096)
    settings = supar(type=kind, base_d_ff=1024.0, base_n_layers=2, depth_exponent=exponent)
    density = 1 / 8 if kind == "supar" else 1.0
    found = table(settings, model, uniform(model, density))
    assert found.forward.residual == residual
    assert found.forward.output == 1.0951835 / 4
    for entry in found.tensors:
        in_block = entry.name.startswith("blocks.")
        assert entry.epsilon_multiplier == (epsilon if in_block else 1)
        if entry.role is Role.HIDDEN:
            assert entry.learning_rate_multiplier == hidden / density
            assert entry.weight_decay_multiplier == 4
            # No division by the root of 2 L, for the matrices that write the residual stream too.
            assert entry.init_std == pytest.approx(0.08665602 / (4 * density) ** 0.5, rel=1e-15)
        elif in_block:
            assert entry.learning_rate_multiplier == vector
        else:
            assert entry.learning_rate_multiplier == 1


def test_completeps_own_exponent_is_one() -> None:
    model = shapes(n_layers=32)
    settings = {"base_n_layers": 2, "type": "completep"}
    assert table(supar(**settings), model) == table(supar(**settings, depth_exponent=1.0), model)
    assert table(supar(type="mup"), model).forward.residual == 1


@pytest.fixture(scope="module")
def btlm() -> Plan:
    return plan_recipe(load_recipe("btlm/paper").recipe)


def test_btlm_switches_its_context_on_one_line(btlm: Plan) -> None:
    """Learning rate and tokens a step are continuous at step 119,727; the moments are kept."""
    first, second = btlm.timeline.phases
    switch = first.end_position
    assert (first.steps, second.start_step) == (119_727, 119_727)
    before, after = first.learning_rate.at(switch), second.learning_rate.at(switch)
    assert before == after == pytest.approx(3.0778e-3, abs=5e-8)
    hidden = btlm.table.entry("blocks.0.attention.query_key_value.weight")
    assert after * hidden.learning_rate_multiplier == pytest.approx(3.0778e-4, abs=5e-9)
    embedding = btlm.table.entry("token_embedding.weight")
    assert after * embedding.learning_rate_multiplier == after
    assert {item.stretches[0].step_length for item in (first, second)} == {3_932_160}
    assert [btlm.recipe.phases[1].optimizer_state, first.context_length] == [None, 2048]
    rates = [first.learning_rate.at(95 * 3_932_160), second.learning_rate.at(second.end_position)]
    assert rates == pytest.approx([1.2e-2, 1.0138e-4], rel=1e-3)


def test_a_warm_up_ends_at_the_peak_and_spends_no_step_at_zero(btlm: Plan) -> None:
    """The update to n tokens takes the rate at n: step 0 is not lost, step 94 is the peak."""
    steps = [btlm.timeline.next_step(step * 3_932_160) for step in (0, 94, 95)]
    rates = [step.learning_rate for step in steps if step is not None]
    assert rates[0] == pytest.approx(1.2e-2 / 95)
    assert rates[1] == pytest.approx(1.2e-2) and rates[2] < rates[1]
    assert btlm.timeline.phases[0].learning_rate.at(0) == 0


def test_tables_differ_by_sparsity_alone() -> None:
    """A phase's table is a function of settings, shapes and densities, and of nothing else."""
    model = shapes()
    pairs = itertools.product([{}, uniform(model, 0.25)], repeat=2)
    for one, other in pairs:
        assert (table(supar(), model, one) == table(supar(), model, other)) is (one == other)
    mup = supar(type="mup")
    densities = uniform(model, 0.25)
    for dense, sparse in zip(
        table(mup, model).tensors, table(mup, model, densities).tensors, strict=True
    ):
        assert (dense.init_std, dense.learning_rate_multiplier) == (
            sparse.init_std,
            sparse.learning_rate_multiplier,
        )
