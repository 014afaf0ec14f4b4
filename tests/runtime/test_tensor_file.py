"""Safetensors files written tensor by tensor are those of the library; damaged ones are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from feldspar.core.errors import RunError
from feldspar.runtime.tensor_file import TensorFile, TensorFileWriter, TensorHeader, save_tensors

TENSORS = {
    "z.weight": torch.randn(3, 5),
    "a": torch.randn(7, dtype=torch.bfloat16),
    "half": torch.randn(2, 2, dtype=torch.float16),
    "scalar": torch.tensor(3.5),
    "ids": torch.arange(5),
    "mask": torch.tensor([True, False, True]),
    "bytes": torch.arange(3, dtype=torch.uint8),
    "wide": torch.randn(2, dtype=torch.float64),
    'umlaut \u00e4 "quoted"': torch.randn(1),
    "empty": torch.empty(0, 4),
}


@pytest.mark.parametrize("names", [list(TENSORS), ["a"], ["z.weight", "scalar"]])
def test_the_bytes_are_those_of_the_library(tmp_path, names):
    tensors = {name: TENSORS[name] for name in names}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    save_tensors(tensors, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_are_read_one_by_one(tmp_path):
    save_file(TENSORS, tmp_path / "file", metadata={"format": "pt"})
    file = TensorFile(tmp_path / "file")
    assert set(file) == set(TENSORS) and file.metadata == {"format": "pt"}
    for name, tensor in TENSORS.items():
        assert file.header(name) == TensorHeader.of(tensor)
        assert torch.equal(file[name], tensor)


def test_transposed_views_and_any_order(tmp_path):
    with TensorFileWriter(
        tmp_path / "file",
        {"a": TensorHeader((5, 3), torch.float32), "b": TensorHeader((7,), torch.bfloat16)},
    ) as writer:
        writer.write("b", TENSORS["a"])
        writer.write("a", TENSORS["z.weight"].t())
    found = load_file(tmp_path / "file")
    assert torch.equal(found["a"], TENSORS["z.weight"].t()) and torch.equal(
        found["b"], TENSORS["a"]
    )


def _with_header(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


PLACE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xfe",
        _with_header({"a": PLACE}, b"1234"),
        _with_header({"a": PLACE | {"shape": [3]}}, b"12345678"),
        _with_header({"a": PLACE | {"dtype": "F77"}}, b"12345678"),
        _with_header({"a": PLACE | {"data_offsets": [8, 0]}}, b"12345678"),
        _with_header({"a": PLACE | {"data_offsets": [-8, 0]}}, b"12345678"),
        _with_header({"a": {"dtype": "F32"}}, b"12345678"),
        _with_header({"a": 3}, b"12345678"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        TensorFile(tmp_path / "file")


def test_a_file_that_became_shorter_is_refused(tmp_path):
    save_tensors({"a": torch.randn(100)}, tmp_path / "file")
    file = TensorFile(tmp_path / "file")
    with (tmp_path / "file").open("r+b") as handle:
        handle.truncate(300)
    with pytest.raises(RunError, match="it ends inside the tensor a"):
        file["a"]
