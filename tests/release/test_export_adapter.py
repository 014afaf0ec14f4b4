"""Updates of LoRA in a run's folder, as ``peft`` loads them: with their base, or over another."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import feldspar
from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.rounding import rounding, terms_of
from tests.train.conftest import recipe_file, shards_folder  # noqa: F401  # fixtures

peft = pytest.importorskip("peft")

LORA = "{rank: 3, alpha: 6, targets: [query, value, feed_forward_output]}"
SHORT = ("phases.0.length=4 steps", "phases.1.length=4 steps", "parametrization.learning_rate=0.05")
LLAMA = (
    "model.positions=rotary",
    "model.feed_forward=swiglu",
    "model.norm={type: rms}",
    "model.bias=false",
)


def run(recipe: Path, out: Path, overrides: Sequence[str]) -> Path:
    train(load_recipe(str(recipe), [*SHORT, *overrides]), out)
    return out


def difference_from_peft(trained: Path, base: Path, folder: Path) -> tuple[float, float]:
    """The largest difference from the run's logits, and what rounding allows."""
    loaded = load_run(trained)
    rows = feldspar.open_model(trained).tokenizer.vocab_size
    tokens = torch.randint(0, rows, (2, 16), generator=torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.no_grad():
        expected = loaded.decoder.logits(loaded.decoder(tokens))[..., :rows]
        found = model(tokens).logits[..., :rows]
    largest = float(expected.abs().max())
    bound = rounding(terms_of(loaded.decoder, tokens), torch.float32, largest)
    return float((found - expected).abs().max()), bound


def test_updates_bring_their_base_along(recipe_file: Path, tmp_path: Path) -> None:  # noqa: F811
    trained = run(recipe_file, tmp_path / "run", [f"phases.1.lora={LORA}", *LLAMA])
    folder = tmp_path / "adapter"
    feldspar.export(trained, folder, file_format="peft")
    configuration = json.loads((folder / "adapter_config.json").read_text())
    assert configuration["base_model_name_or_path"] == str(folder / "base")
    ends = ["mlp.down_proj", "self_attn.q_proj", "self_attn.v_proj"]
    assert configuration["target_modules"] == ends
    difference, bound = difference_from_peft(trained, folder / "base", folder)
    assert difference < bound
    with pytest.raises(UserError, match="exists"):
        feldspar.export(trained, folder, file_format="peft")
    feldspar.export(trained, folder, file_format="peft", overwrite=True)
    with pytest.raises(UserError, match="the phase short has no LoRA"):
        first = str(4 * 16 * 8)
        feldspar.export(trained, tmp_path / "no", file_format="peft", checkpoint=first)


def test_updates_of_an_open_base_name_it(recipe_file: Path, tmp_path: Path) -> None:  # noqa: F811
    base = tmp_path / "base"
    first = run(recipe_file, tmp_path / "first", LLAMA)
    tokens = feldspar.export(first, base).vocab_size
    start = [f"start_from={{type: huggingface, path: {base}}}", f"model.vocab_size={tokens}"]
    start += [*LLAMA, "model.tied_embeddings=false", "parametrization={learning_rate: 0.05}"]
    both = [f"phases.{index}.lora={LORA}" for index in range(2)]
    trained = run(recipe_file, tmp_path / "run", [*start, *both])
    folder = tmp_path / "adapter"
    feldspar.export(trained, folder, file_format="peft")
    configuration = json.loads((folder / "adapter_config.json").read_text())
    assert configuration["base_model_name_or_path"] == str(base)
    assert not (folder / "base").exists()
    difference, bound = difference_from_peft(trained, base, folder)
    assert difference < bound
    with_norms = run(recipe_file, tmp_path / "norms", [*start, *both, "phases.1.trainable=[norm]"])
    feldspar.export(with_norms, tmp_path / "own", file_format="peft")
    assert (tmp_path / "own" / "base").is_dir(), "the norms differ from those of the first base"
    difference, bound = difference_from_peft(with_norms, tmp_path / "own/base", tmp_path / "own")
    assert difference < bound
    for path, message in ((base, "only a run has updates"), (trained, "is not known")):
        with pytest.raises(UserError, match=message):
            feldspar.export(path, tmp_path / "no", file_format="peft" if path is base else "pfet")
