"""A soft prompt exported as input embeddings: transformers computes what we do with them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.import_folder import import_model
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.recipe.sections.model import SoftPromptSettings
from tests.huggingface.conftest import BTLM, GPT2, LLAMA, MUP
from tests.rounding import assert_within_rounding, terms_of

SHAPES = {"gpt2": GPT2, "llama": LLAMA, "own": BTLM}
BETWEEN = SoftPromptSettings(length=3, place="between")


def prompted(make_decoder, shape, forward=None) -> Decoder:
    """A decoder with random weights and three vectors."""
    plain = make_decoder(shape, forward)
    decoder = Decoder(plain.settings, 3).eval()
    with torch.no_grad():
        decoder.soft_prompt.weight.normal_(generator=torch.Generator().manual_seed(4))
    state = plain.state_dict() | {"soft_prompt.weight": decoder.soft_prompt.weight.detach()}
    decoder.load_state_dict(state)
    if forward is not None:
        description = ModelDescription(decoder.settings, forward)
        set_forward_multipliers(decoder, description.forward)
    return decoder


@pytest.mark.parametrize("forward", [None, MUP], ids=["sp", "mup"])
@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_among_the_embeddings_give_our_logits(make_decoder, export, tokens, shape, forward):
    decoder = prompted(make_decoder, SHAPES[shape], forward)
    folder: Path = export(decoder, forward, soft_prompt=BETWEEN)
    noted = json.loads((folder / "config.json").read_text())["soft_prompt"]
    assert noted == {"file": "soft_prompt.safetensors", "length": 3, "place": "between"}
    vectors = load_file(folder / noted["file"])["soft_prompt"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    table = model.get_input_embeddings()
    source, target = tokens[:, :8], tokens[:, 8:]
    ids = decoder.settings.vocab_size + torch.arange(3).expand(2, -1)
    with torch.no_grad():
        parts = [table(source), vectors.expand(2, -1, -1), table(target)]
        found = model(inputs_embeds=torch.cat(parts, dim=1)).logits
        expected = decoder.logits(decoder(torch.cat([source, ids, target], dim=1)))
    assert_within_rounding(found, expected, terms_of(decoder, tokens))
    assert "soft_prompt.weight" not in import_model(folder).state


def test_a_prompt_that_the_phase_does_not_use_is_left_out(make_decoder, export):
    folder = export(prompted(make_decoder, GPT2))
    assert "soft_prompt" not in json.loads((folder / "config.json").read_text())
    assert not (folder / "soft_prompt.safetensors").exists()


def test_a_prompt_of_another_width_is_refused(make_decoder, export):
    decoder = prompted(make_decoder, GPT2)
    decoder.soft_prompt.weight = torch.nn.Parameter(torch.zeros(3, 5))
    with pytest.raises(UserError, match=r"soft_prompt\.weight"):
        export(decoder)
