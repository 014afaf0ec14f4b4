"""A base whose texts begin with a token: trained, measured, continued and exported with it."""

import json
from math import log
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.plan.sources import resolve_mixtures
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings
from feldspar.release.export_run import export_run
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.train.data import open_shards, open_training_data, plan_loaded
from feldspar.train.opened_model import open_model
from feldspar.train.run import train
from tests.tokens.bases import english
from tests.tokens.conftest import write_documents
from tests.tokens.tokenizer.test_declaration import assert_same_for_transformers, whole_base
from tests.train.conftest import losses_of, metrics_of

RECIPE = """
schema_version: 1
name: begun
seed: 3
shards: {{path: {shards}}}
model: {{n_layers: 2, d_model: 32, n_heads: 2, d_ff: 64, vocab_size: 720, max_sequence_length: 16,
  positions: rotary, norm: rms, feed_forward: swiglu, bias: false}}
parametrization: {{type: sp, learning_rate: 1e-2, init_std: 0.05}}
phases: [{{name: only, length: 6 steps, batch: {{sequences: 4}}, mixture: {{prose: {{epochs: 0.1}},
  code: 0.9}}, normalize_mixture: true, allow_repeat: true}}]
evaluation: {{every: 3 steps, validation_sequences: 4}}
checkpoints: {{every: 3 steps}}
runtime: {{trackers: [], threads: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, shards and a recipe."""
    root = tmp_path_factory.mktemp("begun")
    whole_base(root / "base")
    texts = english()
    documents = write_documents(
        root / "documents",
        {
            "train": {"prose": texts[:40], "code": texts[40:60]},
            "validation": {"prose": texts[60:65], "code": texts[65:70]},
            "test": {"prose": texts[70:72], "code": texts[72:74]},
        },
    )
    tokenizer = HuggingFaceTokenizer(path=str(root / "base"))
    build_shards(documents, tokenizer, ShardSettings(path=root / "shards"), seed=0, workers=1)
    (root / "begun.yaml").write_text(RECIPE.format(shards=root / "shards"))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    train(load_recipe(str(folder / "begun.yaml")), folder / "run")
    return folder / "run"


def test_plan_and_reader_count_the_same_passes(folder: Path) -> None:
    loaded = load_recipe(str(folder / "begun.yaml"), ["phases.0.length=400 steps"])
    shards, plan = open_shards(loaded.recipe), plan_loaded(loaded)
    data = open_training_data(loaded.recipe, plan.timeline, shards)
    (mixture,) = resolve_mixtures(loaded.recipe, plan.timeline, plan.source_tokens)
    read = data.reader.shards.epochs(0)
    for name, epochs in mixture.epochs.items():
        # The mixture rounds to whole windows of 15 tokens.
        assert read[name] == pytest.approx(epochs, abs=15 / shards.tokens("train", name))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_length_in_epochs_reads_them(folder: Path, epochs: int) -> None:
    changes = [f"phases.0.length={epochs} epochs", "phases.0.mixture=natural"]
    loaded = load_recipe(str(folder / "begun.yaml"), changes)
    shards, plan = open_shards(loaded.recipe), plan_loaded(loaded)
    data = open_training_data(loaded.recipe, plan.timeline, shards)
    for name, read in data.reader.shards.epochs(0).items():
        assert read == pytest.approx(epochs, abs=75 / shards.tokens("train", name))


def test_sequences_begin_with_it_and_a_resumed_run_reads_the_same(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    recipe = folder / "begun.yaml"
    loaded = load_recipe(str(recipe))
    data = open_training_data(
        loaded.recipe, plan_loaded(loaded).timeline, open_shards(loaded.recipe)
    )
    assert (data.reader.read(0, 0, 24).tokens[:, 0] == 1).all()
    train(load_recipe(str(recipe)), tmp_path / "part")
    newest = sorted((tmp_path / "part" / "checkpoints").iterdir())[-1]
    for file in newest.iterdir():
        file.unlink()
    train(load_recipe(str(recipe)), tmp_path / "part")
    assert losses_of(tmp_path / "part") == losses_of(run)
    assert {"validation/prose/bits_per_byte"} <= set(metrics_of(run)[-1])


def test_text_is_measured_as_transformers_measures_it(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "exported")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    short, long = "It is.", " ".join(english()[80].split()[:20])
    for text in (short, long):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        # Windows of 16 inputs that begin with the token; later ones score what is new.
        whole, scored, nats, begin = [*ids, tokenizer.eos_token_id], 0, 0.0, 0
        while scored < len(whole) - 1:
            end = min(begin + 16, len(whole) - 1)
            window = torch.tensor([[ids[0], *whole[begin + 1 : end + 1]]])
            with torch.no_grad():
                logits = theirs(window[:, :-1]).logits.double().log_softmax(-1)
            chosen = logits.gather(2, window[:, 1:, None])[0, scored - begin :]
            nats, scored, begin = nats - float(chosen.sum()), end, begin + 8
        expected = nats / log(2) / len(text.encode())
        for place in (run, tmp_path / "exported"):
            assert open_model(place).bits_per_byte(text) == pytest.approx(expected, rel=1e-5)


def test_a_prompt_begins_with_it(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "exported")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    for prompt in ("It is", ""):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        found = theirs.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        expected = prompt + tokenizer.decode(found, skip_special_tokens=True)
        assert open_model(run).generate(prompt, 6).strip() == expected.strip()


def test_the_export_declares_what_the_base_declares(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    export_run(run, tmp_path / "exported")
    assert_same_for_transformers(folder / "base", tmp_path / "exported")
    generation = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert generation == json.loads((folder / "base" / "generation_config.json").read_text()) | {
        "pad_token_id": AutoTokenizer.from_pretrained(folder / "base").pad_token_id
    }
