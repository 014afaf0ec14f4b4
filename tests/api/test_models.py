"""Models opened from runs, exported folders and releases: they agree with transformers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import feldspar
from feldspar.train.opened_model import Model
from tests.rounding import assert_within_rounding, rounding, terms_of

TEXT = "The river runs under the old stone house.\n"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return feldspar.open_model(run)


def terms(model: Model, tokens: int) -> int:
    """Bound the terms behind one logit."""
    return terms_of(model.text_model.decoder, torch.zeros(tokens))


def transformers_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()


@pytest.mark.parametrize("form", [list, np.array, torch.tensor], ids=["list", "numpy", "torch"])
def test_logits_are_those_of_transformers(
    form: Callable[[Any], Any], exported: Path, model: Model
) -> None:
    ids = np.random.default_rng(0).integers(0, model.tokenizer.vocab_size, (3, 40)).tolist()
    with torch.no_grad():
        expected = transformers_model(exported)(torch.tensor(ids)).logits
    for opened in (model, feldspar.open_model(exported)):
        logits = opened.logits(form(ids))
        assert logits.shape == (3, 40, model.tokenizer.vocab_size)
        assert logits.dtype == torch.float32 and logits.device.type == "cpu"
        assert_within_rounding(logits, expected, terms(model, 120))
    assert not logits.requires_grad


def test_generation_is_that_of_transformers(exported: Path, model: Model) -> None:
    ids = model.tokenizer.encode(TEXT)
    with torch.no_grad():
        expected = transformers_model(exported).generate(
            torch.tensor([ids]), max_new_tokens=12, do_sample=False
        )
    written = model.generate(TEXT, max_new_tokens=12)
    end = model.tokenizer.end_of_document_id
    kept = [token for token in expected[0].tolist() if token != end]
    assert written == model.tokenizer.decode(kept) and written.startswith(TEXT)
    assert feldspar.open_model(exported).generate(TEXT, 12) == written


def test_draws_follow_the_seed(model: Model) -> None:
    first, again, other = (
        model.generate(TEXT, 20, temperature=1.0, top_k=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert model.generate(TEXT, 0) == TEXT
    begun = model.generate("", 5, temperature=1.0)
    assert model.tokenizer.end_of_document not in begun


def test_the_stream_is_the_continuation_in_whole_characters(model: Model) -> None:
    for seed in range(5):
        options = {"temperature": 1.5, "top_p": 0.9, "seed": seed}
        stream = model.stream(TEXT[:9], 40, **options)
        pieces = list(stream)
        assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])
        assert model.generate(TEXT[:9], 40, **options) == TEXT[:9] + "".join(pieces)
        assert len(stream.new_ids) == 40 or stream.ended


def test_bits_per_byte_are_those_of_the_logits(model: Model) -> None:
    end = model.tokenizer.end_of_document_id
    ids = [end, *model.tokenizer.encode(TEXT), end]
    assert len(ids) < 64, "one window"
    logits = model.logits([ids[:-1]])[0].double()
    nats = F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
    expected = nats / math.log(2) / len(TEXT.encode())
    share = rounding(terms(model, len(ids)), torch.float32)
    assert model.bits_per_byte(TEXT) == pytest.approx(expected, rel=share)
    both = model.bits_per_byte([TEXT, TEXT])
    assert both == pytest.approx(model.bits_per_byte(TEXT), rel=share)


def test_a_release_is_whole_and_opens(run: Path, model: Model, tmp_path: Path) -> None:
    folder = feldspar.release(run, tmp_path / "release")
    assert feldspar.verify_release(folder) == []
    opened = feldspar.open_model(folder)
    found, expected = (each.logits([[1, 2, 3]]) for each in (opened, model))
    assert_within_rounding(found, expected, terms(model, 3))
    with pytest.raises(feldspar.UserError, match="exists already"):
        feldspar.release(run, folder)


def test_an_imported_model_is_the_same(exported: Path, model: Model, tmp_path: Path) -> None:
    settings = feldspar.import_model(exported, tmp_path / "imported")
    assert settings.vocab_size == model.tokenizer.vocab_size
    opened = feldspar.open_model(tmp_path / "imported")
    found, expected = (each.logits([[1, 2, 3]]) for each in (opened, model))
    assert_within_rounding(found, expected, terms(model, 3))


def test_held_out_figures(run: Path, model: Model) -> None:
    figures = feldspar.evaluate(run, baselines=True)
    assert set(figures["sources"]) == {"notes"} and set(figures["baselines"]) > {"xz"}
    assert feldspar.evaluate(model)["bits_per_byte"] == figures["bits_per_byte"]


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2],
        [[1], [2, 3]],
        [[0.5, 1.0]],
        [[True]],
        [[]],
        [["a"]],
        [[-1]],
        [[300]],
        np.zeros((1, 2)),
        np.array([[2**63]], np.uint64),
        torch.zeros(1, 2),
        torch.tensor([[False]]),
    ],
    ids=str,
)
def test_what_are_no_tokens_is_refused(ids: Any, model: Model) -> None:
    with pytest.raises(feldspar.UserError, match="token_ids: "):
        model.logits(ids)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.generate(3), "prompt: a text is needed"),
        (lambda model: model.generate("a", 2.5), "max_new_tokens: a whole number"),
        (lambda model: model.generate("a", -1), "max_new_tokens must not be negative"),
        (lambda model: model.generate("a", temperature=-1), "temperature"),
        (lambda model: model.generate("a", 1, top_p=0), "top_p"),
        (lambda model: model.generate("\ud800"), "cannot be written in UTF-8"),
        (lambda model: model.bits_per_byte(""), "at least one byte of text"),
        (lambda model: model.bits_per_byte("\ud800"), "cannot be written in UTF-8"),
        (lambda model: model.bits_per_byte([1]), "text: a text"),
    ],
)
def test_bad_values_are_refused(call: Callable[[Any], Any], message: str, model: Model) -> None:
    with pytest.raises(feldspar.UserError, match=message):
        call(model)


def test_what_is_no_model_is_refused(run: Path, tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "is no folder"), (tmp_path, "config.json")):
        with pytest.raises(feldspar.UserError, match=message):
            feldspar.open_model(path)
    with pytest.raises(feldspar.UserError, match="no checkpoint at 3"):
        feldspar.open_model(run, checkpoint="3")
    with pytest.raises(feldspar.UserError, match="device: no such device"):
        feldspar.open_model(run, device="toaster")
    with pytest.raises(feldspar.UserError, match="path: a path is needed"):
        feldspar.open_model(3)  # pyrefly: ignore
