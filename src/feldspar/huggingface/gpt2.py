"""GPT-2 (`GPT2LMHeadModel`): learned positions, LayerNorm, GELU's tanh form, biases."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import require_values
from feldspar.model.export_class import GPT2, gpt2_misfits
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import ModelSettings, NoScaling, PositionScaling

MODULES = {
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.input": "mlp.c_fc",
    "feed_forward.output": "mlp.c_proj",
}
OUTER = {
    "token_embedding.weight": "wte.weight",
    "position_embedding.weight": "wpe.weight",
    "final_norm.weight": "ln_f.weight",
    "final_norm.bias": "ln_f.bias",
}
PREFIX = "transformer."
BUFFERS = (".attn.bias", ".attn.masked_bias")


class Gpt2Adapter:
    """Adapter to GPT-2's names and layouts; its linear maps store (in, out)."""

    model_type = "gpt2"
    hf_class = GPT2

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        return gpt2_misfits(settings, scaling)

    def to_configuration(self, settings: ModelSettings, scaling: PositionScaling) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape."""
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "n_positions": settings.max_sequence_length,
            "n_embd": settings.d_model,
            "n_layer": settings.n_layers,
            "n_head": settings.n_heads,
            "n_inner": settings.d_ff,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": settings.norm.epsilon,
            "resid_pdrop": settings.dropout,
            "embd_pdrop": settings.dropout,
            "attn_pdrop": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelSettings:
        """Return our settings. Raises UserError for what we do not compute."""
        require_values(
            configuration,
            {
                "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
                "scale_attn_weights": (True,),
                "scale_attn_by_inverse_layer_idx": (False,),
                "add_cross_attention": (False,),
            },
        )
        d_model = configuration["n_embd"]
        return ModelSettings(
            n_layers=configuration["n_layer"],
            d_model=d_model,
            n_heads=configuration["n_head"],
            d_ff=configuration.get("n_inner") or 4 * d_model,
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["n_positions"],
            norm=NormSettings(epsilon=configuration.get("layer_norm_epsilon", 1e-5)),
            tied_embeddings=configuration.get("tie_word_embeddings", True),
        )

    def scaling_of(self, configuration: Mapping[str, Any]) -> PositionScaling:
        """Return no scaling: learned positions have none."""
        return NoScaling()

    def to_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return our tensors under GPT-2's names."""
        renamed = {PREFIX + OUTER[name]: state[name] for name in state if name in OUTER}
        for name, theirs in _block_names(settings).items():
            tensor = state[name]
            renamed[PREFIX + theirs] = tensor.t() if tensor.dim() == 2 else tensor
        if not settings.tied_embeddings:
            renamed["lm_head.weight"] = state["output.weight"]
        return renamed

    def from_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return GPT-2's tensors, with or without their prefix, under our names."""
        found = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in state.items()
            if not name.endswith(BUFFERS)
        }
        ours: dict[str, Tensor] = {}
        for name, theirs in (OUTER | _block_names(settings)).items():
            if theirs not in found:
                raise UserError(f"the folder's weights lack {theirs}")
            tensor = found.pop(theirs)
            ours[name] = tensor.t() if tensor.dim() == 2 and name not in OUTER else tensor
        head = found.pop("lm_head.weight", None)
        if not settings.tied_embeddings:
            if head is None:
                raise UserError("the folder's weights lack lm_head.weight")
            ours["output.weight"] = head
        return ours | found


def _block_names(settings: ModelSettings) -> dict[str, str]:
    return {
        f"blocks.{index}.{ours}.{part}": f"h.{index}.{theirs}.{part}"
        for index in range(settings.n_layers)
        for ours, theirs in MODULES.items()
        for part in ("weight", "bias")
    }
