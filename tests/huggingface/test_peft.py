"""LoRA against ``peft``: the logits of exported updates, and the gradients of one step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import choose
from feldspar.huggingface.export_folder import export_model
from feldspar.huggingface.peft_folder import Update, write_adapter
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import (
    activate,
    add_low_rank,
    low_rank_layers,
    merge,
    remove_low_rank,
    whole_update,
)
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from tests.huggingface.conftest import CRYSTAL, GPT2, LLAMA, MUP
from tests.rounding import rounding, terms_of

peft = pytest.importorskip("peft")

SP = ParametrizationSettings(learning_rate=1.0)
GROUPED = LLAMA | {"n_kv_heads": 2, "tied_embeddings": False}
NEOX = GPT2 | {
    "positions": {"type": "rotary", "fraction": 0.5},
    "branches": "parallel",
    "feed_forward": "gelu_erf",
    "tied_embeddings": False,
}
EVERYWHERE = ("hidden",)


def made(
    shape: dict[str, Any], parametrization: ParametrizationSettings, lora: LoraSettings
) -> tuple[Decoder, ModelDescription]:
    """A random decoder with updates that act; B is not zero."""
    decoder = Decoder(ModelSettings.model_validate(shape))
    add_low_rank(decoder, lora)
    activate(decoder, True)
    chance = torch.Generator().manual_seed(4)
    for parameter in decoder.parameters():
        parameter.data.normal_(std=0.2, generator=chance)
    description = ModelDescription(decoder.settings, parametrization)
    set_forward_multipliers(decoder, description.forward)
    return decoder.eval(), description


def write(
    folder: Path, decoder: Decoder, description: ModelDescription, lora: LoraSettings
) -> tuple[Path, Path]:
    """Write base and updates; the decoder becomes a plain one without them."""
    updates = {
        f"{name}.weight": Update(
            layer.lora_a.weight.detach(),
            whole_update(layer.lora_b.weight.detach(), layer.parts, layer.out_features),
        )
        for name, layer in low_rank_layers(decoder)
    }
    remove_low_rank(decoder)
    base, adapter_folder = folder / "base", folder / "adapter"
    export_model(dict(decoder.named_parameters()), description, None, base)
    adapter_folder.mkdir()
    adapter, expressed = choose("auto", description)
    write_adapter(
        *(adapter_folder, updates, lora, adapter, description, expressed, str(base)), torch.float32
    )
    return base, adapter_folder


@pytest.mark.parametrize("parametrization", [SP, MUP], ids=["sp", "multipliers"])
@pytest.mark.parametrize(
    ("shape", "targets"),
    [
        (GPT2, EVERYWHERE),
        (GPT2, ("query", "value")),
        (LLAMA, EVERYWHERE),
        (GROUPED, ("query", "value", "blocks.1.feed_forward.*")),
        (NEOX, ("key", "attention_output")),
        (CRYSTAL, EVERYWHERE),
    ],
    ids=["gpt2", "gpt2 parts", "llama", "llama parts", "neox", "own class"],
)
def test_peft_computes_our_logits(
    shape: dict[str, Any],
    targets: tuple[str, ...],
    parametrization: ParametrizationSettings,
    tmp_path: Path,
) -> None:
    lora = LoraSettings(rank=3, alpha=6, targets=targets, dropout=0.1)
    decoder, description = made(shape, parametrization, lora)
    tokens = torch.randint(0, 48, (2, 20))
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
        base, folder = write(tmp_path, decoder, description, lora)
        plain = decoder.logits(decoder(tokens))
        model = AutoModelForCausalLM.from_pretrained(base)
        model = peft.PeftModel.from_pretrained(model, str(folder)).eval()
        found = model(tokens).logits
    largest = float(expected.abs().max())
    assert float((expected - plain).abs().max()) > 0.01 * largest, "the updates change something"
    bound = rounding(terms_of(decoder, tokens), torch.float32, largest)
    assert float((found - expected).abs().max()) < bound
    assert len(json.loads((folder / "adapter_config.json").read_text())["target_modules"]) > 0


def test_a_step_of_peft_has_our_loss_and_gradients(tmp_path: Path) -> None:
    """In float64; the class's maps share our A, whose gradient is then the sum of theirs."""
    lora = LoraSettings(rank=3, alpha=6, targets=("hidden",))
    decoder, description = made(GROUPED, SP, lora)
    decoder.double()
    tokens = torch.randint(0, 48, (2, 20))
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    labels = torch.cat([tokens[:, 1:], torch.full((2, 1), -100)], dim=1)
    loss, count = decoder.loss(tokens, labels)
    (loss / count).backward()
    gradients = {
        name: value.grad.clone()
        for name, value in decoder.named_parameters()
        if value.grad is not None
    }
    base, folder = write(tmp_path, decoder.float(), description, lora)
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64),
        str(folder),
        is_trainable=True,
        autocast_adapter_dtype=False,
    ).double()
    theirs = model(tokens, labels=tokens).loss
    theirs.backward()
    # Llama's norms compute in float32.
    assert theirs.item() == pytest.approx((loss / count).item(), rel=1e-6)
    named = {
        name.removeprefix("base_model.model.").replace(".default", ""): value.grad
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    parts = {
        "attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.output": ("self_attn.o_proj",),
        "feed_forward.input": ("mlp.gate_proj", "mlp.up_proj"),
        "feed_forward.output": ("mlp.down_proj",),
    }
    for layer in range(2):
        for ours, maps in parts.items():
            places = [f"model.layers.{layer}.{part}" for part in maps]
            down = sum(named.pop(f"{place}.lora_A.weight") for place in places)
            up = torch.cat([named.pop(f"{place}.lora_B.weight") for place in places])
            for matrix, expected in (("lora_a", down), ("lora_b", up)):
                found = gradients[f"blocks.{layer}.{ours}.{matrix}.weight"]
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert not named


def test_merged_weights_compute_the_same() -> None:
    lora = LoraSettings(rank=3, alpha=6, targets=("query", "value", "*.feed_forward.*"))
    decoder, _ = made(GROUPED, SP, lora)
    tokens = torch.randint(0, 48, (2, 20))
    with torch.no_grad():
        expected = decoder.double().logits(decoder(tokens))
        names = {name for name, _ in decoder.named_parameters() if ".lora_" not in name}
        merge(decoder)
        remove_low_rank(decoder)
        assert {name for name, _ in decoder.named_parameters()} == names
        found = decoder.logits(decoder(tokens))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
