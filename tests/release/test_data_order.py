"""The data order of a release: another program re-creates it from the release and the shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldspar.cli.main import run_with
from tests.tokens.sequences.independent_order import digest_of, sequences_of


def order_of(release: Path) -> dict[str, Any]:
    return json.loads((release / "data_order" / "order.json").read_text())


def test_an_independent_program_re_creates_the_order(
    open_release: Path, shards_folder: Path
) -> None:
    order = order_of(open_release)
    phases = sequences_of(order_of(open_release), shards_folder)
    assert [len(phase) for phase in phases] == [64, 24]
    for chunk in order["chunks"]:
        first, stop = chunk["first_sequence"], chunk["first_sequence"] + chunk["sequences"]
        tokens = [tokens for _, tokens in phases[chunk["phase"]][first:stop]]
        assert digest_of(tokens) == chunk["sha256"]
    for number, phase in enumerate(phases):
        index = np.load(open_release / "data_order" / order["index"][str(number)])
        assert index.tolist() == [place for place, _ in phase]


def test_each_checkpoint_ends_a_chunk(open_release: Path) -> None:
    order = order_of(open_release)
    record = json.loads((open_release / "release.json").read_text())
    ends = [chunk["position"] for chunk in order["chunks"]]
    assert ends == [each["tokens"] for each in record["checkpoints"]]
    assert ends == [512, 1024, 1536, 1792]


def test_a_step_is_traced_to_the_tokens_of_shards(
    open_release: Path, shards_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tokens", "order", str(open_release), "--step", "9", "--json"]
    assert run_with([*words, "--shards", str(shards_folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["phase"] == "long" and len(found["sequences"]) == 4
    expected = sequences_of(order_of(open_release), shards_folder)[1][:4]
    for place, (_, tokens) in zip(found["sequences"], expected, strict=True):
        parts = [
            np.fromfile(shards_folder / part["file"], "<u2")[part["first_token"] :][
                : part["tokens"]
            ]
            for part in place["reads"]
        ]
        assert np.array_equal(np.concatenate(parts), tokens)
