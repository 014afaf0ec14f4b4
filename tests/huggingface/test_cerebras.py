"""BTLM, Jais, CrystalCoder and Cerebras-GPT against their formulas, written out here.

The reference works on the folder's own tensors, with one token, head and key at a time where that
says the formula; nothing of it is shared with the package.
"""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import feldspar
from feldspar.core.errors import UserError
from feldspar.huggingface.import_folder import import_model
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import generate
from tests.rounding import assert_within_rounding, terms_of

SHAPE = {
    "vocab_size": 48,
    "n_positions": 64,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": 20,
    "layer_norm_epsilon": 1e-5,
}
MUP = {
    "mup_embeddings_scale": 14.6,
    "mup_output_alpha": 2.22,
    "mup_width_scale": 0.125,
    "mup_scale_qk_dot_by_d": True,
}
NEUTRAL = {
    "mup_embeddings_scale": 1.0,
    "mup_output_alpha": 1.0,
    "mup_width_scale": 1.0,
    "mup_scale_qk_dot_by_d": False,
}
OLDER = {"embeddings_scale": 14.6, "width_scale": 0.111, "scale_qk_dot_by_d": True}
ALIBI = {"activation_function": "swiglu", "position_embedding_type": "alibi"}
ROTARY = {"activation_function": "swiglu", "position_embedding_type": "rotary", "rotary_dim": 4}
GROWING = {"alibi_scaling": {"type": "linear", "train_seq_len": 8}}
CASES = {
    "btlm": {"model_type": "btlm"} | ALIBI | MUP,
    "btlm by the root": {"model_type": "btlm"} | ALIBI | MUP | {"mup_scale_qk_dot_by_d": False},
    "btlm fixed": {"model_type": "btlm", "alibi_scaling": {"type": "linear", "factor": 2.0}}
    | ALIBI
    | MUP,
    "btlm growing": {"model_type": "btlm"} | ALIBI | MUP | GROWING,
    "btlm standard": {"model_type": "btlm"} | ALIBI | NEUTRAL,
    "jais": {"model_type": "jais"} | ALIBI | MUP | {"n_head": 6},
    "jais older": {"model_type": "jais"} | ALIBI | OLDER,
    "jais learned": {"model_type": "jais", "position_embedding_type": "learned"}
    | {"activation_function": "gelu"}
    | MUP,
    "crystalcoder": {"model_type": "crystalcoder"} | ROTARY | MUP,
    "cerebras-gpt": {"model_type": "gpt2", "activation_function": "gelu"},
    "cerebras-gpt mup": {"model_type": "gpt2", "activation_function": "gelu"} | MUP,
}


def tensors_of(configuration):
    """Random tensors under the class's names; matrices are stored (in, out)."""
    generator = torch.Generator().manual_seed(0)
    d, inner = configuration["n_embd"], configuration["n_inner"]

    def normal(*shape, mean=0.0, std=0.2):
        return mean + std * torch.randn(shape, generator=generator)

    found = {"wte.weight": normal(configuration["vocab_size"], d)}
    if configuration.get("position_embedding_type", "learned") == "learned":
        found["wpe.weight"] = normal(configuration["n_positions"], d)
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, inner)}
    shapes |= {"mlp.c_proj": (inner, d)}
    if configuration["activation_function"] == "swiglu":
        shapes["mlp.c_fc2"] = (d, inner)
    for layer in range(configuration["n_layer"]):
        for name, shape in shapes.items():
            found[f"h.{layer}.{name}.weight"] = normal(*shape)
            found[f"h.{layer}.{name}.bias"] = normal(shape[1])
        for name in ("ln_1", "ln_2"):
            found[f"h.{layer}.{name}.weight"] = normal(d, mean=1.0)
            found[f"h.{layer}.{name}.bias"] = normal(d)
    found |= {"ln_f.weight": normal(d, mean=1.0), "ln_f.bias": normal(d)}
    return {f"transformer.{name}": tensor for name, tensor in found.items()}


def folder_of(case, path, extra=()):
    configuration = SHAPE | CASES[case]
    path.mkdir()
    (path / "config.json").write_text(json.dumps(configuration))
    tensors = tensors_of(configuration)
    save_file(tensors | dict(extra), path / "model.safetensors", metadata={"format": "pt"})
    return configuration, tensors


def slopes(heads):
    """Press et al.: a geometric sequence, filled up from the one of twice as many heads."""
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    more = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(2 * power)][0::2]
    return first + more[: heads - power]


def reference_logits(configuration, tensors, tokens):
    def get(name):
        return tensors[f"transformer.{name}"].double()

    def multiplier(newer, older, default):
        return configuration.get(newer, configuration.get(older, default))

    d, heads = configuration["n_embd"], configuration["n_head"]
    width, length = d // heads, tokens.shape[1]
    kind = configuration.get("position_embedding_type", "learned")
    x = get("wte.weight")[tokens]
    if kind == "learned":
        x = x + get("wpe.weight")[:length]
    x = x * multiplier("mup_embeddings_scale", "embeddings_scale", 1.0)
    by_width = multiplier("mup_scale_qk_dot_by_d", "scale_qk_dot_by_d", False)
    rule = configuration.get("alibi_scaling") or {}
    stretch = rule.get("factor") or max(1.0, length / rule.get("train_seq_len", length))
    places = torch.arange(length)
    hidden = places[None, :] > places[:, None]

    def norm(x, name):
        weight, bias = get(f"{name}.weight"), get(f"{name}.bias")
        return F.layer_norm(x, (d,), weight, bias, configuration["layer_norm_epsilon"])

    def conv(x, name):
        return x @ get(f"{name}.weight") + get(f"{name}.bias")

    def rotate(x):
        """Neighbouring pairs of the first dimensions, as complex numbers."""
        turned = configuration["rotary_dim"]
        pairs = torch.view_as_complex(x[..., :turned].unflatten(-1, (-1, 2)).contiguous())
        angles = places[:, None] * 10000.0 ** (-torch.arange(0, turned, 2) / turned).double()
        pairs = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([torch.view_as_real(pairs).flatten(-2), x[..., turned:]], -1)

    for layer in range(configuration["n_layer"]):
        block = f"h.{layer}."
        query, key, value = conv(norm(x, block + "ln_1"), block + "attn.c_attn").split(d, -1)
        out = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q, k, v = query[..., part], key[..., part], value[..., part]
            if kind == "rotary":
                q, k = rotate(q), rotate(k)
            scores = q @ k.transpose(1, 2) / (width if by_width else math.sqrt(width))
            if kind == "alibi":
                distance = (places[:, None] - places[None, :]).abs()
                scores = scores - slopes(heads)[head] / stretch * distance
            out.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v)
        x = x + conv(torch.cat(out, -1), block + "attn.c_proj")
        inner = norm(x, block + "ln_2")
        if configuration["activation_function"] == "swiglu":
            gate = conv(inner, block + "mlp.c_fc2")
            inner = conv(inner, block + "mlp.c_fc") * gate * torch.sigmoid(gate)
        else:
            inner = conv(inner, block + "mlp.c_fc")
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = x + conv(inner, block + "mlp.c_proj")
    width_scale = configuration.get("mup_width_scale", 1.0)
    output = multiplier("mup_output_alpha", "width_scale", 1.0) * width_scale
    return norm(x, "ln_f") @ get("wte.weight").t() * output


@pytest.mark.parametrize("case", CASES)
def test_logits_of_a_prompt_and_under_the_cache(tmp_path, tokens, case):
    configuration, tensors = folder_of(case, tmp_path / "theirs")
    decoder = import_model(tmp_path / "theirs").decoder().eval()
    expected = reference_logits(configuration, tensors, tokens)
    terms = terms_of(decoder, tokens)
    with torch.no_grad():
        found = decoder.logits(decoder(tokens))
        assert_within_rounding(found, expected, terms)
        # The cache's room is the length that a growing scaling counts by, as in generation.
        cache = KeyValueCache(decoder.settings, len(tokens), tokens.shape[1])
        parts = [decoder.logits(decoder(tokens[:, :9], cache=cache))]
        for place in range(9, tokens.shape[1]):
            parts.append(decoder.logits(decoder(tokens[:, place : place + 1], cache=cache)))
    assert_within_rounding(torch.cat(parts, 1), expected, terms)


@pytest.mark.parametrize("case", ["btlm", "jais older", "crystalcoder", "cerebras-gpt mup"])
def test_greedy_text(tmp_path, tokens, case):
    configuration, tensors = folder_of(case, tmp_path / "theirs")
    decoder = import_model(tmp_path / "theirs").decoder().eval()
    written = tokens[:, :6]
    for _ in range(8):
        logits = reference_logits(configuration, tensors, written)[:, -1]
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], 1)
    assert torch.equal(generate(decoder, tokens[:, :6], 8), written)


BUFFERS = {
    "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
    "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
    "transformer.relative_pe.slopes": torch.ones(3, 1),
    "lm_head.weight": torch.ones(48, 24),
}


@pytest.mark.parametrize("case", CASES)
def test_the_export_has_the_same_tensors_and_keys(tmp_path, case):
    buffers = dict(BUFFERS)
    if case.startswith("cerebras-gpt"):
        del buffers["transformer.relative_pe.slopes"], buffers["lm_head.weight"]
    configuration, tensors = folder_of(case, tmp_path / "theirs", buffers)
    feldspar.import_model(tmp_path / "theirs", tmp_path / "ours")
    feldspar.export(tmp_path / "ours", tmp_path / "back")
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    record = json.loads((tmp_path / "back" / "config.json").read_text())
    for key, value in configuration.items():
        expected = pytest.approx(value, rel=1e-15) if isinstance(value, float) else value
        assert record[key] == expected, key
    again = import_model(tmp_path / "back")
    assert again.description == import_model(tmp_path / "ours").description


def test_the_description_lets_training_go_on_as_the_authors_would(tmp_path):
    folder_of("btlm", tmp_path / "theirs")
    found = import_model(tmp_path / "theirs").description.parametrization
    assert (found.type, found.base_d_model, found.base_d_ff) == ("mup", 3, 2.5)
    assert (found.embedding_multiplier, found.output_multiplier) == (14.6, 2.22)
    assert found.attention_multiplier == 1.0
    folder_of("jais older", tmp_path / "older")
    found = import_model(tmp_path / "older").description.parametrization
    assert (found.type, found.output_multiplier) == ("sp", 0.111)


@pytest.mark.parametrize("case", ["cerebras-gpt mup", "jais learned"])
def test_as_plain_gpt2_the_multipliers_are_folded(tmp_path, tokens, case):
    from transformers import GPT2LMHeadModel

    configuration, tensors = folder_of(case, tmp_path / "theirs")
    feldspar.export(tmp_path / "theirs", tmp_path / "plain", architecture="gpt2")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        found = model(tokens).logits
    expected = reference_logits(configuration, tensors, tokens)
    assert_within_rounding(found, expected, terms_of(model, tokens))
    record = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert record["folded_from"]["multipliers"]["embedding"] == 14.6
    assert "mup_embeddings_scale" not in record


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mup_output_alpha": 0}, "mup_output_alpha is not a finite number above 0"),
        ({"mup_scale_qk_dot_by_d": 1}, "mup_scale_qk_dot_by_d is neither true nor false"),
        ({"position_embedding_type": "relative"}, "position_embedding_type is not supported"),
        ({"activation_function": "silu"}, "activation_function is not supported"),
        ({"alibi_scaling": {"type": "dynamic", "factor": 2.0}}, "type is not supported"),
        ({"alibi_scaling": {"type": "linear", "factor": -2.0}}, "factor is not a finite number"),
        (
            {"alibi_scaling": {"type": "linear", "factor": 2.0, "train_seq_len": 8}},
            "either factor or train_seq_len is needed, not both",
        ),
        ({"alibi_scaling": {"type": "linear"}}, "either factor or train_seq_len"),
        ({"mup_width_scale": None}, "mup_width_scale missing: the model's multipliers"),
        (dict.fromkeys(MUP), "mup_embeddings_scale, mup_output_alpha, mup_width_scale"),
        (
            {"model_type": "jais", "embeddings_scale": 14.6},
            "width_scale, scale_qk_dot_by_d missing",
        ),
        ({"n_embd": 25}, "not a multiple of 3 heads"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_refused_values(tmp_path, changes, message):
    configuration, _ = folder_of("btlm", tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(configuration | changes))
    with pytest.raises(UserError, match=message):
        import_model(tmp_path / "theirs")
