"""A small recipe in a file of its own."""

from pathlib import Path

import pytest

SMALL = """\
schema_version: 1
name: small
model:
  n_layers: 2
  d_model: 64
  n_heads: 4
  d_ff: 128
  vocab_size: 256
  max_sequence_length: 64
parametrization: {learning_rate: 1e-2}
phases:
  - name: all
    length: 10 steps
    batch: {sequences: 4}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path
