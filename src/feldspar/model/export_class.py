"""The class of transformers that a model is exported as, and the settings that decide it.

The file loads no torch: a plan states the class before anything is trained.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from feldspar.recipe.sections.model import (
    LearnedPositions,
    LinearScaling,
    ModelSettings,
    NtkScaling,
    PositionScaling,
    RotaryPositions,
)

GPT2, LLAMA, MINISTRAL = "GPT2LMHeadModel", "LlamaForCausalLM", "MinistralForCausalLM"
OWN = "FeldsparForCausalLM"


@dataclass(frozen=True)
class ExportClass:
    """The class of an exported model."""

    name: str
    nearest: str
    """The class in transformers that lacks the least; ``name`` itself where it is such a class."""
    needs: tuple[str, ...]
    """The changes of settings that ``nearest`` would need; empty where none is needed."""

    @property
    def has_own_code(self) -> bool:
        """Tell whether the model brings the code of its class (trust_remote_code=True)."""
        return self.name == OWN

    @property
    def description(self) -> str:
        """Describe the class, and the settings that keep it from being a class in transformers."""
        if not self.has_own_code:
            return f"{self.name}, which transformers loads by itself"
        return (
            f"{self.name}, which brings its own code (trust_remote_code=True): "
            f"{self.nearest} would need {'; '.join(self.needs)}"
        )

    def record(self) -> dict[str, Any]:
        """Return plain values for a plan."""
        return {
            "class": self.name,
            "own_code": self.has_own_code,
            "nearest": self.nearest,
            "needs": list(self.needs),
            "description": self.description,
        }


def export_class(settings: ModelSettings, scaling: PositionScaling) -> ExportClass:
    """Choose the first class that can express ``settings`` with positions so scaled."""
    missing = {name: misfits(settings, scaling) for name, misfits in NATIVE.items()}
    nearest = min(missing, key=lambda name: len(missing[name]))
    needs = tuple(missing[nearest])
    return ExportClass(OWN if needs else nearest, nearest, needs)


JUDGED = {
    "n_layers",
    "d_model",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "d_ff",
    "vocab_size",
    "max_sequence_length",
    "positions",
    "feed_forward",
    "norm",
    "bias",
    "tied_embeddings",
    "dropout",
}
"""Settings that the functions below check. Every other setting must have its default."""
JUDGED_PARTS = {
    "norm": ("type", "epsilon"),
    "positions": ("type", "fraction", "base", "interleaved", "max_exponent"),
}
"""Keys of these sections that the functions below check."""


def _unjudged(settings: ModelSettings, judged: Iterable[str] = ()) -> dict[str, bool]:
    """List, for each setting that is not checked, whether it has its default."""
    unchecked = {
        f"model.{name}: left at its default": getattr(settings, name) == field.default
        for name, field in ModelSettings.model_fields.items()
        if name not in JUDGED.union(judged)
    }
    sections = {"norm": settings.norm, "positions": settings.positions}
    for key, names in JUDGED_PARTS.items():
        section = sections[key]
        unchecked |= {
            f"model.{key}.{name}: left at its default": getattr(section, name) == field.default
            for name, field in type(section).model_fields.items()
            if name not in names
        }
    return unchecked


def gpt2_misfits(settings: ModelSettings, scaling: PositionScaling) -> list[str]:
    """List the settings that GPT-2 would need; learned positions are never scaled."""
    wanted = {
        "model.positions: learned": isinstance(settings.positions, LearnedPositions),
        "model.norm: layer": settings.norm.type == "layer",
        "model.feed_forward: gelu": not settings.gated,
        "model.bias: true": settings.bias is True,
        "model.n_kv_heads: as many as n_heads": settings.kv_heads == settings.n_heads,
        "model.head_dim: d_model / n_heads": settings.head_width * settings.n_heads
        == settings.d_model,
        **_unjudged(settings),
    }
    return [need for need, holds in wanted.items() if not holds]


def llama_misfits(settings: ModelSettings, scaling: PositionScaling) -> list[str]:
    """List the settings that Llama would need."""
    biases = settings.biases
    wanted = _like_llama(settings, scaling) | _unjudged(settings)
    wanted["model.bias: query_key_value and attention_output alike"] = (
        biases.query_key_value == biases.attention_output
    )
    return [need for need, holds in wanted.items() if not holds]


def ministral_misfits(settings: ModelSettings, scaling: PositionScaling) -> list[str]:
    """List the settings that Ministral would need."""
    wanted = _like_llama(settings, scaling) | {
        "model.sliding_window: given": settings.sliding_window is not None,
        "model.bias: false": settings.bias is False,
        **_unjudged(settings, ["sliding_window"]),
    }
    return [need for need, holds in wanted.items() if not holds]


def _like_llama(settings: ModelSettings, scaling: PositionScaling) -> dict[str, bool]:
    positions = settings.positions
    whole = (
        isinstance(positions, RotaryPositions)
        and positions.fraction == 1.0
        and not positions.interleaved
    )
    return {
        "model.positions: rotary, whole and not interleaved": whole,
        "model.norm: rms": settings.norm.type == "rms",
        "model.feed_forward: swiglu": settings.feed_forward == "swiglu",
        "model.d_model: a multiple of n_heads": settings.d_model % settings.n_heads == 0,
        "model.dropout: 0": settings.dropout == 0,
        "position_scaling: linear with a factor, yarn, llama3 or none": not rope_misfit(scaling),
    }


def rope_misfit(scaling: PositionScaling) -> bool:
    """Tell whether transformers lacks the scaling, or has a growing one that drifts in decoding."""
    growing = isinstance(scaling, LinearScaling | NtkScaling) and scaling.train_length is not None
    return growing or isinstance(scaling, NtkScaling)


NATIVE: dict[str, Callable[[ModelSettings, PositionScaling], list[str]]] = {
    LLAMA: llama_misfits,
    GPT2: gpt2_misfits,
    MINISTRAL: ministral_misfits,
}
"""Classes in transformers, each with a function that lists the settings it would need."""
