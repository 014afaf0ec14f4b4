"""Layouts are exact inverses, and hold the rows that the classes' documentation promises."""

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.huggingface.converted_tensors import OurTensors, TheirTensors
from feldspar.huggingface.tensor_rules import (
    Interleaved,
    Rows,
    Same,
    TensorRule,
    Transposed,
    found_names,
)
from feldspar.runtime.tensor_file import TensorFile, save_tensors

LAYOUTS = {
    "same": Same(),
    "rows": Rows((6, 4, 2)),
    "transposed": Transposed(),
    "transposed rows": Transposed(Rows((5, 7))),
    "by head": Interleaved(2, (2, 2, 2)),
    "by group": Interleaved(2, (4, 1, 1)),
}


@pytest.mark.parametrize("shape", [(12, 5), (12,)], ids=["weight", "bias"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_inverses_in_both_orders(name, shape):
    layout = LAYOUTS[name]
    ours = torch.randn(shape)
    parts = layout.split(ours)
    assert torch.equal(layout.join(parts), ours)
    again = layout.split(layout.join([part.contiguous() for part in parts]))
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))
    shapes = [part.shape for part in layout.split(torch.empty(shape, device="meta"))]
    assert shapes == [part.shape for part in parts]


def test_rows_of_groups_are_ordered_by_part():
    """Two key heads, two queries each, of one row: q0 q1 k0 v0 q2 q3 k1 v1."""
    theirs = torch.tensor([10, 11, 20, 30, 12, 13, 21, 31])
    ours = Interleaved(2, (2, 1, 1)).join([theirs])
    assert ours.tolist() == [10, 11, 12, 13, 20, 21, 30, 31]


RULES = (
    TensorRule("a", ("model.x", "model.y"), Rows((2, 1))),
    TensorRule("b", ("head",)),
)


def test_names_may_lack_the_prefix_and_known_extras_are_ignored():
    found = found_names(RULES, ["x", "y", "head", "0.mask"], "model.", (r"\d+\.mask",))
    assert found == {"model.x": "x", "model.y": "y", "head": "head"}
    with pytest.raises(UserError, match=r"the weights hold the tensor model\.10\.mask\.more"):
        found_names(
            RULES, ["model.x", "y", "head", "model.10.mask.more"], "model.", (r"\d+\.mask",)
        )
    with pytest.raises(UserError, match=r"the weights lack the tensor model\.y"):
        found_names(RULES, ["x", "head"], "model.", ())


def test_tensors_are_checked_before_they_are_read_and_come_back_with_their_types(tmp_path):
    theirs = {
        "model.x": torch.randn(2, 3, dtype=torch.bfloat16),
        "model.y": torch.randn(1, 3, dtype=torch.bfloat16),
        "head": torch.randn(4),
    }
    save_tensors(theirs, tmp_path / "file")
    ours = OurTensors(TensorFile(tmp_path / "file"), RULES, {"b": (4,), "a": (3, 3)}, "model.")
    assert list(ours) == ["b", "a"] and ours.header("a").dtype == torch.bfloat16
    back = TheirTensors(dict(ours), RULES)
    assert list(back) == list(theirs)
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    assert all(back.header(name).dtype == theirs[name].dtype for name in theirs)
    with pytest.raises(UserError, match=r"model\.x has another shape") as caught:
        OurTensors(TensorFile(tmp_path / "file"), RULES, {"b": (4,), "a": (3, 5)}, "model.")
    assert "(2, 5)" in str(caught.value)
