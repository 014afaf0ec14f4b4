"""The architectures that can be imported and exported."""

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import Adapter
from feldspar.huggingface.gpt2 import Gpt2Adapter
from feldspar.huggingface.llama import LlamaAdapter, MinistralAdapter
from feldspar.huggingface.own import OwnAdapter
from feldspar.recipe.sections.model import ModelSettings, PositionScaling

ARCHITECTURES: dict[str, Adapter] = {
    "gpt2": Gpt2Adapter(),
    "llama": LlamaAdapter(),
    "ministral": MinistralAdapter(),
    "feldspar": OwnAdapter(),
}
"""Adapters by ``model_type``; ``auto`` chooses the first that fits."""


def choose(architecture: str, settings: ModelSettings, scaling: PositionScaling) -> Adapter:
    """Return the adapter of that name, or for ``auto`` the first that can express the model.

    Raises UserError for an unknown name, or one whose class cannot express the model.
    """
    if architecture == "auto":
        adapters = ARCHITECTURES.values()
        return next(adapter for adapter in adapters if not adapter.misfits(settings, scaling))
    adapter = of_model_type(architecture, ("auto", *ARCHITECTURES))
    misfits = adapter.misfits(settings, scaling)
    if misfits:
        raise UserError(
            f"the architecture {architecture} cannot express this model",
            found="it needs " + "; ".join(misfits),
            do="choose --architecture auto",
        )
    return adapter


def of_model_type(
    model_type: str | None, allowed: tuple[str, ...] = tuple(ARCHITECTURES)
) -> Adapter:
    """Return the adapter of a ``model_type``. Raises UserError that lists the known ones."""
    if model_type not in ARCHITECTURES:
        raise UserError(f"the architecture {model_type!r} is not supported", allowed=allowed)
    return ARCHITECTURES[model_type]
