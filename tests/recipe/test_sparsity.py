"""Settings of sparsity: defaults that old recipes do not show, and values that fit together."""

import pytest
from pydantic import TypeAdapter, ValidationError

from feldspar.recipe.sections.sparsity import AnySparsity, Sparsity, StaticSparsity

READER: TypeAdapter[AnySparsity] = TypeAdapter(Sparsity)


def static(sparsity: float, **changes: object) -> StaticSparsity:
    return StaticSparsity.model_validate({"type": "static", "sparsity": sparsity} | changes)


def test_a_recipe_without_later_settings_is_written_as_before() -> None:
    assert static(0.75).model_dump_json() == (
        '{"type":"static","sparsity":0.75,"targets":["attention","feed_forward"],'
        '"per_tensor":{},"sampling":"exact"}'
    )


def test_patterns_that_the_key_block_says_are_not_written() -> None:
    assert static(0.75, pattern="unstructured") == static(0.75)
    assert static(0.75, pattern="block", block=[4, 1]) == static(0.75, block=[4, 1])
    assert "pattern" not in static(0.75, pattern="block", block=[4, 1]).model_dump()


@pytest.mark.parametrize(
    "values",
    [
        {"type": "dense"},
        {"type": "static", "sparsity": 0.75, "block": [4, 1], "distribution": "erk"},
        {"type": "static", "sparsity": 0.5, "pattern": "2:4", "per_tensor": {"blocks.0.*": 0}},
        {"type": "static", "sparsity": 1 - 1 / 3, "pattern": "1:3"},
        {"type": "set", "sparsity": 0.9, "every": "1e6 tokens", "block": [4, 4], "seed": 0},
        {"type": "rigl", "sparsity": 0.9, "allow_regrow": False, "distribution": "er"},
        {"type": "gradual", "sparsity": 0.9, "initial_sparsity": 0.5, "end": "2000 steps"},
    ],
)
def test_there_and_back(values: dict[str, object]) -> None:
    settings = READER.validate_python(values)
    assert READER.validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "1:4"}, "sparsity: it is 0.5, but the pattern 1:4 .* write sparsity: 0.75"),
        ({"pattern": "4:4"}, "pattern: 4:4 must keep at least 1 entry and fewer than all 4"),
        ({"pattern": "0:4"}, "pattern: 0:4 must keep"),
        ({"pattern": "half"}, "pattern: 'half' is none; write unstructured, block, or N:M"),
        ({"pattern": "block"}, "pattern: block needs the size of its blocks; add the key block"),
        ({"pattern": "block", "block": [1, 1]}, "pattern: block needs the size of its blocks"),
        ({"pattern": "unstructured", "block": [4, 1]}, "pattern: unstructured masks single"),
        ({"pattern": "2:4", "block": [4, 1]}, "block: the pattern 2:4 already says"),
        ({"pattern": "2:4", "distribution": "er"}, "distribution: the pattern 2:4 already says"),
        ({"pattern": "2:4", "sampling": "bernoulli"}, "sampling: the pattern 2:4 already says"),
        ({"pattern": "2:4", "per_tensor": {"*": 0.25}}, "per_tensor: with the pattern 2:4"),
        ({"block": [0, 1]}, "greater than 0"),
        ({"block": [4]}, "at least 2|missing|Field required"),
        ({"block": 4}, "valid tuple"),
    ],
)
def test_values_that_do_not_fit_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        static(0.5, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "gradual", "initial_sparsity": 0.95}, "initial_sparsity: 0.95 is more than"),
        ({"type": "rigl", "drop_fraction": 0}, "greater than 0"),
        ({"type": "set", "pattern": "2:4"}, "Extra inputs"),
        ({"type": "set", "sampling": "bernoulli"}, "Extra inputs"),
    ],
)
def test_values_that_moving_masks_refuse(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        READER.validate_python({"sparsity": 0.9} | values)
