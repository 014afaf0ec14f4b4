"""Masks packed for a checkpoint and read back."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import RunError
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.masks import Masks, draw_mask
from feldspar.sparsity.saved import (
    describe_masks,
    digest_of_masks,
    masks_from_state,
    masks_to_state,
)

SETTINGS = StaticSparsity(type="static", sparsity=0.75, per_tensor={"blocks.0.*": 0.5})


def some_masks(*shapes: tuple[int, int]) -> Masks:
    tensors = {f"w{n}": draw_mask(f"w{n}", shape, 0.6, 1) for n, shape in enumerate(shapes)}
    return Masks(tensors, SETTINGS, seed=1)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4))
def test_there_and_back(shapes: list[tuple[int, int]]) -> None:
    masks = some_masks(*shapes)
    state = masks_to_state(masks)
    tensors = state.pop("tensors")
    state = json.loads(json.dumps(state)) | {"tensors": tensors}
    again = masks_from_state(state, "here")
    assert (again.settings, again.seed) == (SETTINGS, 1)
    assert list(again.tensors) == list(masks.tensors)
    for name, mask in masks.tensors.items():
        assert again.tensors[name].dtype is torch.bool
        assert torch.equal(again.tensors[name], mask)
    assert digest_of_masks(again) == digest_of_masks(masks)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({}, "unstructured"),
        ({"distribution": "erk"}, "unstructured"),
        ({"block": [4, 1]}, "block"),
        ({"pattern": "2:4"}, "2:4"),
    ],
)
def test_settings_of_each_kind(changes: dict[str, object], pattern: str) -> None:
    settings = StaticSparsity.model_validate({"type": "static", "sparsity": 0.5} | changes)
    masks = Masks(some_masks((4, 8)).tensors, settings, seed=1)
    state = masks_to_state(masks)
    assert masks_from_state(state, "here").settings == settings
    assert "block" in state["sparsity"]["settings"] or "block" not in changes
    described = describe_masks(masks)
    assert described["pattern"] == pattern
    assert described.get("block") == changes.get("block")


def test_a_byte_holds_eight_entries() -> None:
    state = masks_to_state(some_masks((30, 30)))
    assert state["tensors"]["mask/w0"].dtype is torch.uint8
    assert state["tensors"]["mask/w0"].numel() == 113
    assert state["sparsity"]["masks"]["w0"]["kept"] == 360


def test_dense_leaves_nothing() -> None:
    assert masks_to_state(Masks()) == {}
    assert masks_from_state({"step": 3}, "here").tensors == {}


def test_each_bit_is_guarded() -> None:
    state = masks_to_state(some_masks((3, 5), (4, 4)))
    for byte in range(2):
        changed = copy.deepcopy(state)
        changed["tensors"]["mask/w0"][byte] ^= 1 << byte
        with pytest.raises(RunError, match="the mask of w0 is not the one that was saved"):
            masks_from_state(changed, "here")
    del state["tensors"]["mask/w1"]
    with pytest.raises(RunError, match="the mask of w1 is absent"):
        masks_from_state(state, "here")


def test_one_digest_tells_masks_apart() -> None:
    masks = some_masks((4, 6))
    moved = Masks({"w0": masks.tensors["w0"].view(6, 4)}, SETTINGS, 1)
    renamed = Masks({"w1": masks.tensors["w0"]}, SETTINGS, 1)
    flipped = Masks({"w0": ~masks.tensors["w0"]}, SETTINGS, 1)
    digests = {digest_of_masks(item) for item in (masks, moved, renamed, flipped)}
    assert len(digests) == 4
    described = describe_masks(masks)
    assert described["digest"] in digests and described["sparsity"] == 0.75
