"""Loss by position, windows and the sweep (oracle B8), against one plain pass a document."""

import json
from collections.abc import Callable
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.evaluate.length_sweep import sweep_lengths
from feldspar.evaluate.loss.by_position import buckets_of, crossing, losses_by_position
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.recipe.sections.evaluation import LengthSweepSettings
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling
from tests.evaluate.loss.test_text_loss import random_documents

Make = Callable[..., TextModel]
HALVED = LinearScaling(type="linear", factor=2)
GROWING = LinearScaling(type="linear", train_length=8)


def settings(**keys: object) -> LengthSweepSettings:
    return LengthSweepSettings.model_validate({"lengths": [8, 24], **keys})


def test_a_model_without_knowledge_has_the_same_loss_everywhere(make_model: Make) -> None:
    model = make_model(positions="alibi", std=0.0)
    losses = losses_by_position(model, random_documents(30, 41, 24), 24)
    assert losses.shape == (3, 24)
    for bucket in buckets_of(losses, 10):
        assert bucket.nats_per_token == pytest.approx(log(257))
        assert bucket.standard_error == pytest.approx(0, abs=1e-6)
    assert [bucket.tokens for bucket in buckets_of(losses, 10)] == [30, 30, 12]


def test_buckets_weigh_up_to_the_mean_and_tell_where_the_loss_rises() -> None:
    losses = np.random.default_rng(0).random((5, 23)) + 1
    buckets = buckets_of(losses, 4)
    total = sum(bucket.nats_per_token * bucket.tokens for bucket in buckets)
    assert total / losses.size == pytest.approx(losses.mean())
    first = losses[:, :4].mean(axis=1)
    assert buckets[0].standard_error == pytest.approx(first.std(ddof=1) / 5**0.5)
    assert buckets_of(losses[:1], 4)[0].standard_error is None
    flat = np.ones((2, 32))
    flat[:, 20:] = 1.03
    assert crossing(flat, buckets_of(flat, 4), 8) == 20
    assert crossing(flat * 0 + 1, buckets_of(flat * 0 + 1, 4), 8) is None
    assert crossing(flat, buckets_of(flat, 4), 64) is None


def test_every_scaling_is_measured_on_the_same_documents(make_model: Make) -> None:
    model = make_model(positions="alibi", max_sequence_length=8)
    documents = random_documents(30, 5, 24, 50)
    wanted = settings(scalings=["none", HALVED.model_dump(), GROWING.model_dump()])
    records = sweep_lengths(model, wanted, documents, train_length=8)
    assert len(records) == 12 and model.decoder.position_scaling == NoScaling()
    assert {record["documents"] for record in records} == {3}
    for record in records:
        length, name = record["length_tokens"], record["scaling"]
        scaling = {"none": NoScaling(), "linear factor 2": HALVED}.get(name, GROWING)
        model.decoder.scale_positions(scaling)
        nats, tokens = 0.0, 0
        for document in (documents[0], documents[2], documents[3]):
            for begin in range(0, 24, length if record["measure"] == "sliding_window" else 24):
                row = [256, *document.tolist()][begin : begin + length + 1]
                whole = torch.tensor([row])
                nats += float(model.decoder.token_losses(whole[:, :-1], whole[:, 1:]).sum())
                tokens += len(row) - 1
        mean = nats / tokens
        if record["measure"] == "sliding_window":
            assert record["non_overlapping_perplexity"] == pytest.approx(exp(mean), rel=1e-5)
            whole = record["sliding_perplexity"] / record["non_overlapping_perplexity"]
            assert (whole == pytest.approx(1, rel=1e-6)) is (length == 24)
        else:
            assert record["nats_per_token"] == pytest.approx(mean, rel=1e-5)


def test_what_cannot_be_measured_is_refused(make_model: Make) -> None:
    model = make_model(positions="alibi")
    with pytest.raises(UserError, match="no document has 24 tokens"):
        sweep_lengths(model, settings(), random_documents(23, 4), 8)
    with pytest.raises(UserError, match="passkey has at least"):
        sweep_lengths(model, settings(lengths=[16], measures=["passkey"]), [], 8)
    learned = make_model(positions="learned", max_sequence_length=16)
    with pytest.raises(UserError, match="24 tokens are more than the 16 learned positions"):
        sweep_lengths(learned, settings(), random_documents(30), 16)
    with pytest.raises(UserError, match="the model has learned"):
        sweep_lengths(
            learned, settings(lengths=[8], scalings=[HALVED.model_dump()]), random_documents(30), 16
        )
    assert learned.decoder.position_scaling == NoScaling()


def test_the_command_sweeps_an_exported_model_on_text(
    make_model: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = make_model(positions="alibi"), tmp_path / "tokenizer"
    tokenizer.mkdir()
    model.tokenizer.save(tokenizer)
    weights = model.decoder.state_dict()
    description = ModelDescription(model.decoder.settings, scaling=HALVED)
    export_model(weights, description, tokenizer, tmp_path / "hf")
    (tmp_path / "text.txt").write_text("the river runs under the old stone house\n" * 10)
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(
        "schema_version: 1\nname: sweep\n"
        "model: {n_layers: 1, d_model: 8, n_heads: 2, d_ff: 8, max_sequence_length: 8, "
        "positions: alibi}\n"
        "parametrization: {type: sp, learning_rate: 1e-3}\n"
        "phases: [{name: all, length: 1 steps, batch: {sequences: 1}}]\n"
        "evaluation: {length_sweep: {lengths: [16, 300], scalings: [none, {type: linear, "
        "factor: 2}], measures: [loss_by_position, passkey], questions: 1}}\n"
    )
    command = ["--quiet", "evaluate", str(tmp_path / "hf"), "--length-sweep", str(recipe)]
    text = ["--text", str(tmp_path / "text.txt")]
    assert run_with([*command, *text]) == 2  # 16 tokens are too few for a passkey
    recipe.write_text(recipe.read_text().replace("[16, 300]", "[250, 300]"))
    assert run_with([*command, *text, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # A model whose slopes are halved was trained on half of its maximum.
    assert found["train_length"] == model.decoder.settings.max_sequence_length // 2
    results = found["results"]
    assert [(row["measure"], row["length_tokens"]) for row in results[::2]] == [
        ("loss_by_position", 250),
        ("loss_by_position", 300),
        ("passkey", 250),
        ("passkey", 300),
    ]
    assert run_with([*command, *text]) == 0
    assert "loss_by_position" in capsys.readouterr().out
    named = recipe.read_text().replace("lengths:", "train_length: 20, lengths:")
    recipe.write_text(named)
    assert run_with([*command, *text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train_length"] == 20
    assert run_with([*command[:-1], "quickstart", *text]) == 2
