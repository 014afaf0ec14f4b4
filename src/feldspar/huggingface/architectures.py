"""The architectures that can be imported and exported."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.bloom import BloomAdapter
from feldspar.huggingface.cerebras import (
    BtlmAdapter,
    CerebrasGptAdapter,
    CrystalCoderAdapter,
    JaisAdapter,
)
from feldspar.huggingface.declared import declares_multipliers
from feldspar.huggingface.falcon import FalconAdapter
from feldspar.huggingface.gemma import Gemma2Adapter, Gemma3Adapter, GemmaAdapter
from feldspar.huggingface.gpt2 import Gpt2Adapter
from feldspar.huggingface.gpt_neox import GptNeoxAdapter
from feldspar.huggingface.llama import LlamaAdapter
from feldspar.huggingface.mistral import MinistralAdapter, MistralAdapter
from feldspar.huggingface.mpt import MptAdapter
from feldspar.huggingface.multipliers import settings_under
from feldspar.huggingface.olmo2 import Olmo2Adapter
from feldspar.huggingface.own import OwnAdapter
from feldspar.huggingface.phi3 import Phi3Adapter
from feldspar.huggingface.qwen import Qwen2Adapter, Qwen3Adapter
from feldspar.huggingface.smollm3 import SmolLM3Adapter
from feldspar.huggingface.starcoder2 import StarCoder2Adapter

CEREBRAS_GPT = "cerebras-gpt"
ARCHITECTURES: dict[str, Adapter] = {
    "gpt2": Gpt2Adapter(),
    "llama": LlamaAdapter(),
    "ministral": MinistralAdapter(),
    "gpt_neox": GptNeoxAdapter(),
    "bloom": BloomAdapter(),
    "mpt": MptAdapter(),
    "falcon": FalconAdapter(),
    "gemma": GemmaAdapter(),
    "gemma2": Gemma2Adapter(),
    "gemma3_text": Gemma3Adapter(),
    "mistral": MistralAdapter(),
    "qwen2": Qwen2Adapter(),
    "qwen3": Qwen3Adapter(),
    "smollm3": SmolLM3Adapter(),
    "phi3": Phi3Adapter(),
    "olmo2": Olmo2Adapter(),
    "starcoder2": StarCoder2Adapter(),
    "feldspar": OwnAdapter(),
    "btlm": BtlmAdapter(),
    "jais": JaisAdapter(),
    "crystalcoder": CrystalCoderAdapter(),
    CEREBRAS_GPT: CerebrasGptAdapter(),
}
"""Adapters by name, which is their ``model_type`` except for Cerebras-GPT. ``auto`` chooses the
first that fits: our own class fits every model, so that those after it are for import, and for an
export that names them."""


def choose(architecture: str, description: ModelDescription) -> tuple[Adapter, ModelDescription]:
    """Return the adapter of that name, or for ``auto`` the first that can express the model.

    The description is that of the model in its class: multipliers that the class lacks are gone, to
    be folded into the weights, and a tied head may have come untied. Raises UserError for an
    unknown name, or one whose class cannot express the model.
    """
    if architecture == "auto":
        architecture = first_fitting(ARCHITECTURES, description) or "feldspar"
    adapter = _named(architecture, ("auto", *ARCHITECTURES))
    expressed = expressed_by(adapter, description)
    misfits = adapter.misfits(expressed.settings, expressed.scaling)
    if misfits:
        raise UserError(
            f"the architecture {architecture} cannot express this model",
            found="it needs " + "; ".join(misfits),
            do="choose --architecture auto",
        )
    return adapter, expressed


def first_fitting(names: Iterable[str], description: ModelDescription) -> str | None:
    """Return the first of these architectures that can express the model; None if none can."""
    for name in names:
        expressed = expressed_by(ARCHITECTURES[name], description)
        if not ARCHITECTURES[name].misfits(expressed.settings, expressed.scaling):
            return name
    return None


def expressed_by(adapter: Adapter, description: ModelDescription) -> ModelDescription:
    """Return the description of the model in a class.

    Multipliers that the class lacks are gone, to be folded into the weights, and a tied head may
    have come untied.
    """
    kept = replace(description, parametrization=adapter.kept_parametrization(description))
    settings = settings_under(description.settings, description.forward, kept.forward)
    return replace(kept, settings=settings)


def name_of(adapter: Adapter) -> str:
    """Return the name of an adapter, which ``choose`` takes."""
    return next(name for name, each in ARCHITECTURES.items() if each is adapter)


def of_configuration(configuration: Mapping[str, Any]) -> Adapter:
    """Return the adapter of a ``config.json``.

    Raises UserError that lists the known architectures, and says so where the model brings code.
    """
    model_type = configuration.get("model_type")
    if "auto_map" in configuration and model_type not in ARCHITECTURES:
        raise UserError(
            f"the architecture {model_type!r} is not supported, and the code that the folder "
            "brings (auto_map) is never run",
            allowed=tuple(ARCHITECTURES),
        )
    if model_type == "gpt2" and declares_multipliers(configuration):
        return ARCHITECTURES[CEREBRAS_GPT]
    return _named(model_type, tuple(ARCHITECTURES))


def _named(name: Any, allowed: tuple[str, ...]) -> Adapter:
    if name not in ARCHITECTURES:
        raise UserError(f"the architecture {name!r} is not supported", allowed=allowed)
    return ARCHITECTURES[name]
