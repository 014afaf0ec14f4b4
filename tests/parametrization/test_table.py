"""The table's rules, and that each classic mistake would be seen in it.

Rules: 2203.03466 (muP), 2304.03208 and 2309.11568 (their released configurations).
"""

from dataclasses import replace

import pytest

from feldspar.core.rows import ModelShapes, Role
from feldspar.model import ModelSettings, model_shapes
from feldspar.parametrization import ParametrizationTable, TensorEntry, table
from feldspar.parametrization.settings import ParametrizationSettings

WIDTH = 4  # m_d
INNER_WIDTH = 8  # m_f: another one, so that the two cannot be mixed up
LAYERS = 6
SIGMA = 0.08


def shapes(tied: bool = False, width: int = WIDTH, inner_width: int = INNER_WIDTH) -> ModelShapes:
    return model_shapes(
        ModelSettings(
            n_layers=LAYERS,
            d_model=64 * width,
            n_heads=2 * width,
            d_ff=128 * inner_width,
            vocab_size=100,
            max_sequence_length=32,
            tied_embeddings=tied,
        )
    )


def settings(**changes: object) -> ParametrizationSettings:
    values = {
        "type": "mup",
        "base_d_model": 64,
        "base_d_ff": 128.0,
        "init_std": SIGMA,
        "learning_rate": 1e-2,
        "embedding_multiplier": 10.0,
        "output_multiplier": 2.0,
    }
    return ParametrizationSettings.model_validate(values | changes)


def expected_width(entry: TensorEntry) -> int:
    """The divisor of a tensor's learning rate, by its name alone."""
    if not entry.name.startswith("blocks.") or not entry.name.endswith(".weight"):
        return 1
    if "norm" in entry.name:
        return 1
    return INNER_WIDTH if "feed_forward.output" in entry.name else WIDTH


def faults(found: ParametrizationTable) -> set[str]:
    """What a check of the printed table says is wrong."""
    wrong = set()
    for entry in found.tensors:
        width = expected_width(entry)
        if entry.learning_rate_multiplier != 1 / width:
            wrong.add(f"learning rate of {entry.role}")
        residual = "output.weight" in entry.name and entry.name.startswith("blocks.")
        std = SIGMA / (width * (2 * LAYERS if residual else 1)) ** 0.5
        if entry.role in (Role.NORM, Role.BIAS):
            std = 0.0
        if entry.init_std != pytest.approx(std, rel=1e-12):
            wrong.add(f"init of {entry.role}")
        if entry.weight_decay_multiplier != (1 if len(entry.shape) == 2 else 0):
            wrong.add(f"weight decay of {entry.role}")
    head_dim = 32
    forward = found.forward
    if (forward.embedding, forward.residual, forward.attention, forward.output) != (
        10,
        1,
        1 / head_dim,
        2 / WIDTH,
    ):
        wrong.add("forward multipliers")
    return wrong


def test_the_table_is_right() -> None:
    found = table(settings(), shapes())
    assert faults(found) == set()
    assert {entry.role for entry in found.tensors} == set(Role)


def mistaken(role: Role, **changes: float) -> ParametrizationTable:
    """The table with a change of every tensor of one role."""
    found = table(settings(), shapes())
    entries = tuple(
        replace(entry, **changes) if entry.role is role else entry for entry in found.tensors
    )
    return replace(found, tensors=entries)


@pytest.mark.parametrize(
    ("name", "found", "seen"),
    [
        ("gains scaled", mistaken(Role.NORM, learning_rate_multiplier=1 / WIDTH), "norm"),
        ("biases scaled", mistaken(Role.BIAS, learning_rate_multiplier=1 / WIDTH), "bias"),
        ("head scaled", mistaken(Role.OUTPUT, learning_rate_multiplier=1 / WIDTH), "output"),
        ("root of m", mistaken(Role.HIDDEN, learning_rate_multiplier=WIDTH**-0.5), "hidden"),
        ("embedding", mistaken(Role.EMBEDDING, learning_rate_multiplier=1 / WIDTH), "embedding"),
        ("positions", mistaken(Role.POSITION, learning_rate_multiplier=1 / WIDTH), "position"),
        ("d for f", mistaken(Role.HIDDEN, learning_rate_multiplier=1 / WIDTH), "hidden"),
        ("no scaling", mistaken(Role.HIDDEN, learning_rate_multiplier=1.0), "hidden"),
    ],
)
def test_each_classic_mistake_is_seen(name: str, found: ParametrizationTable, seen: str) -> None:
    assert faults(found) == {f"learning rate of {seen}"}, name


def test_mistakes_in_initial_values_and_multipliers_are_seen() -> None:
    assert faults(mistaken(Role.HIDDEN, init_std=SIGMA)) == {"init of hidden"}
    assert faults(mistaken(Role.OUTPUT, init_std=SIGMA / WIDTH**0.5)) == {"init of output"}
    assert faults(mistaken(Role.BIAS, weight_decay_multiplier=1.0)) == {"weight decay of bias"}
    found = table(settings(), shapes())
    forward = replace(found.forward, attention=32**-0.5)
    assert faults(replace(found, forward=forward)) == {"forward multipliers"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_stands_in_the_embedding_group(tied: bool) -> None:
    found = table(settings(), shapes(tied))
    assert (Role.OUTPUT in {entry.role for entry in found.tensors}) is not tied
    embedding = found.entry("token_embedding.weight")
    assert (embedding.init_std, embedding.learning_rate_multiplier) == (SIGMA, 1)
    assert found.forward.output == 2 / WIDTH


def test_at_the_base_size_mup_differs_from_sp_by_the_attention_alone() -> None:
    base = shapes(width=1, inner_width=1)
    plain = {"embedding_multiplier": 1.0, "output_multiplier": 1.0}
    mup = table(settings(**plain, attention_multiplier=32**0.5), base)
    sp = table(ParametrizationSettings(init_std=SIGMA, learning_rate=1e-2), base)
    assert mup.tensors == sp.tensors
    assert mup.forward.attention == pytest.approx(sp.forward.attention)
    assert replace(mup.forward, attention=0) == replace(sp.forward, attention=0)
    without = table(settings(**plain), base).forward
    assert without.attention == 1 / 32


def test_sp_scales_nothing() -> None:
    found = table(ParametrizationSettings(init_std=SIGMA, learning_rate=1e-2), shapes())
    assert {entry.learning_rate_multiplier for entry in found.tensors} == {1}
    stds = {entry.init_std for entry in found.tensors}
    assert stds == {0, SIGMA, SIGMA / (2 * LAYERS) ** 0.5}
    assert found.forward.attention == pytest.approx(32**-0.5)


def test_weight_decay_may_keep_rate_times_decay() -> None:
    found = table(settings(weight_decay_scaling="width"), shapes())
    for entry in found.tensors:
        product = entry.weight_decay_multiplier * entry.learning_rate_multiplier
        assert product == (1 if len(entry.shape) == 2 else 0)


def test_epsilon_may_shrink_in_the_blocks() -> None:
    found = table(settings(epsilon_scaling="width"), shapes())
    for entry in found.tensors:
        inside = entry.name.startswith("blocks.")
        assert entry.epsilon_multiplier == (1 / WIDTH if inside else 1)
    plain = table(settings(), shapes())
    assert {entry.epsilon_multiplier for entry in plain.tensors} == {1}


def test_block_outputs_may_have_their_own_initial_values() -> None:
    found = table(settings(block_output_init_std=0.5), shapes())
    changed = {entry.name for entry in found.tensors if entry.init_std == 0.5}
    assert len(changed) == 2 * LAYERS and all("output.weight" in name for name in changed)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_d_model": None},
        {"base_d_ff": None},
        {"base_d_model": 0},
        {"base_d_ff": -1.0},
        {"learning_rate": float("nan")},
        {"init_std": float("inf")},
        {"init_std": 0.0},
        {"type": "sp"},  # with multipliers that sp does not have
        {"type": "muP"},
    ],
)
def test_what_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        settings(**changes)
