"""Bad recipes: every fault at once, each with its key, its line and what was meant."""

from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.problems import RecipeError

SECOND = "  - {name: two, length: 5 steps, batch: {sequences: 4}, learning_rate: %s}\n"
RAMP = """{type: linear_ramp, from: 3 sequences, to: 4 sequences, quantum: 2 sequences,
      over: 5 tokens}"""
WARM_UP = "[{to: 1e-3, over: 1 steps}, {to: 0, over: rest}]"


def errors_of(path: Path, old: str, new: str) -> tuple[UserError, int]:
    """The error of the recipe with one replacement, and the line where that happened."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(UserError) as caught:
        loaded = load_recipe(str(path))
        with loaded.locating_errors():
            plan_recipe(loaded.recipe)
    return caught.value, line


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("n_heads: 4", "n_haeds: 4", "model.n_haeds: unknown key; did you mean 'model.n_heads'?"),
        ("name: small", "d_model: 5", "d_model: unknown key here; it belongs at model.d_model"),
        ("d_ff: 128", "context_length: 9", "it belongs at phases.N.context_length"),
        ("d_ff: 128", "zzz: 9", "model.zzz: unknown key (keys here: attention_soft_cap, bias"),
        ("d_ff: 128", "d_ff: true", "model.d_ff: input should be a valid integer, found True"),
        ("d_ff: 128", "d_ff: 10.5", "model.d_ff: input should be a valid integer, found 10.5"),
        ("d_ff: 128", "d_ff: '128'", "model.d_ff: input should be a valid integer, found '128'"),
        ("d_ff: 128", "d_ff: null", "model.d_ff: input should be a valid integer, found None"),
        ("d_ff: 128", "d_ff: 0", "model.d_ff: input should be greater than 0, found 0"),
        ("d_ff: 128", "d_ff: 128\n  bias: 1", "model.bias: input should be a valid boolean"),
        ("name: small", "name: a b", "name: string should match pattern"),
        ("schema_version: 1", "schema_version: 2", "schema_version: input should be 1, found 2"),
        (
            "n_heads: 4",
            "n_heads: 5",
            "d_model 64 is not a multiple of 5 heads; nearest d_model: 60 or 65",
        ),
        (
            "n_heads: 4",
            "n_heads: 4\n  n_kv_heads: 3",
            "4 query heads are not a multiple of 3 key heads",
        ),
        (
            "d_ff: 128",
            "d_ff: 128\n  positions: alib",
            "model.positions.type: unknown type 'alib'; did you mean 'alibi'?",
        ),
        (
            "d_ff: 128",
            "d_ff: 128\n  positions: {type: alibi, base: 5}",
            (
                "model.positions.base: unknown key (keys here: max_exponent, rounded, "
                "slope_multiplier, type)"
            ),
        ),
        (
            "d_ff: 128",
            "d_ff: 128\n  positions: {type: rotary, fraction: 0.01}",
            "model.positions.fraction: it rotates 0 of 16",
        ),
        ("length: 10 steps", "length: 10", "phases.0.length: 10 needs a unit"),
        ("length: 10 steps", "length: 10 stpes", "did you mean 'steps'"),
        ("length: 10 steps", "length: 5% of run", "must be an absolute amount above 0"),
        ("length: 10 steps", "length: 0 steps", "must be an absolute amount above 0"),
        ("length: 10 steps", "length: 10 tokens", "is less than one step of 256 tokens"),
        ("length: 10 steps", "length: 3 epochs", "needs the size of the sources"),
        ("{sequences: 4}", "{sequences: 4, tokens: 5}", "phases.0.batch: give either sequences"),
        ("{sequences: 4}", "{tokens: 5}", "phases.0.batch.tokens: 5 tokens hold no sequence of 64"),
        ("{sequences: 4}", "5", "phases.0.batch: input should be"),
        (
            "{sequences: 4}",
            "{type: by_tokens, levels: [{from: 1 steps, sequences: 4}]}",
            "phases.0.batch.levels.0.from: the first level must begin at 0",
        ),
        ("n_layers: 2", f"n_layers: {10**18}", "model.n_layers: input should be less than or"),
        ("{sequences: 4}", f"{{sequences: {10**18}}}", "less than or equal to 1000000000000"),
        (
            "{sequences: 4}",
            RAMP.replace("from: 3", "from: 2").replace("to: 4", "to: 2e12"),
            "phases.0.batch.quantum: 2 sequences gives the ramp 1.00e+12 batch sizes",
        ),
        (
            "{sequences: 4}",
            RAMP,
            "phases.0.batch.from: 3 sequences is not a multiple of 2 sequences",
        ),
        (
            "{sequences: 4}",
            "{sequences: 4}\n    mixture: {a: 0.5, b: 0.4}",
            "phases.0.mixture: the probabilities sum to 0.9, not 1 (phase all: a 0.5, b 0.4)",
        ),
        (
            "{sequences: 4}",
            "{sequences: 4}\n    mixture: {a: 0}",
            "phases.0.mixture: every probability is 0",
        ),
        ("{sequences: 4}", "{sequences: 4}\n    mixture: {a: {}}", "give probability, epochs or"),
        (
            "{sequences: 4}",
            "{sequences: 4}\n    context_length: 65",
            "phases.0.context_length: 65 tokens are more than model.max_sequence_length",
        ),
        (
            "{sequences: 4}",
            "{sequences: 4}\nschedule: {learning_rate: [{to: 1, over: 11 steps}]}",
            "schedule.learning_rate.0: the segment ends after 2,816 tokens, past the end at 2,560",
        ),
        (
            "{sequences: 4}",
            f"{{sequences: 4}}\n{SECOND % WARM_UP}",
            "phases.1.optimizer_state: this phase warms up again",
        ),
        (
            "{sequences: 4}",
            "{sequences: 4}\n  - {name: all, length: 1 steps, batch: {sequences: 4}}",
            "phases: two phases are named 'all'",
        ),
        (
            "{learning_rate: 1e-2}",
            "{learning_rate: 1e-2, type: mup}",
            "parametrization.base_d_model: mup needs base_d_model and base_d_ff",
        ),
        (
            "{learning_rate: 1e-2}",
            "{learning_rate: 1e-2, epsilon_scaling: width}",
            "parametrization.epsilon_scaling: sp does not use it",
        ),
        ("{learning_rate: 1e-2}", "{learning_rate: -1}", "parametrization.learning_rate: input"),
        ("{learning_rate: 1e-2}", "{learning_rate: .nan}", "learning_rate is not a finite number"),
        (
            "{learning_rate: 1e-2}",
            "{learning_rate: 1e-2, base_d_model: 0}",
            "parametrization.base_d_model: input should be greater than 0",
        ),
        ("parametrization: {learning_rate: 1e-2}\n", "", "parametrization: this key is required"),
        ("    length: 10 steps\n", "", "phases.0.length: this key is required"),
    ],
)
def test_a_fault_is_named_with_its_line(small: Path, old: str, new: str, what: str) -> None:
    error, line = errors_of(small, old, new)
    assert what in error.what
    assert "\n" not in error.what and error.exit_code == 2
    if not what.endswith("required"):
        assert error.where is not None and error.where.startswith(f"{small}:")
        reached = line + new.count("\n")
        assert any(error.where == f"{small}:{n}" for n in range(line - 3, reached + 1))


def test_all_faults_are_told_at_once(small: Path) -> None:
    text = small.read_text()
    for old, new in (("d_ff: 128", "d_ff: x"), ("n_heads", "n_haeds"), ("name: small", "naem: y")):
        text = text.replace(old, new)
    small.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(small))
    lines = str(caught.value).splitlines()
    told = "\n".join(lines)
    for part in ("model.d_ff: input", "model.n_haeds: unknown", "naem: unknown", "name: this key"):
        assert part in told
    for line in (2, 6, 7):
        assert f"{small}:{line}" in told
    assert len(caught.value.others) == 4  # n_heads and name are missing too
    assert sum(line.startswith("also: ") for line in lines) == 4


def test_a_list_with_a_faulty_element_is_not_called_too_short(small: Path) -> None:
    error, _ = errors_of(small, "name: all", "nmae: all")
    assert "too short" not in str(error) and "at least 1" not in str(error)


def test_a_later_phase_may_warm_up_when_it_says_how(small: Path) -> None:
    second = (SECOND % WARM_UP).replace("batch", "optimizer_state: fresh, batch")
    small.write_text(small.read_text() + second)
    assert load_recipe(str(small)).recipe.phases[1].optimizer_state == "fresh"


def test_probabilities_may_be_scaled(small: Path) -> None:
    mixture = ["phases.0.mixture={a: 50, b: 40}", "phases.0.normalize_mixture=true"]
    assert load_recipe(str(small), mixture).recipe.phases[0].normalize_mixture


@pytest.mark.parametrize("rate", ["1e-3", "[{from: 1e-3, to: 0, over: rest}]"])
def test_a_later_phase_without_warm_up_says_nothing(small: Path, rate: str) -> None:
    small.write_text(small.read_text() + SECOND % rate)
    assert load_recipe(str(small)).recipe.phases[1].optimizer_state is None
