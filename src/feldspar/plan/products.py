"""The matrix products of a training step that a decoder needs for the parameters that it trains.

A matrix has a product in the forward pass, one for the gradient of its input, if anything before it
is trained, and one for its own gradient, if it is trained. The decoder itself is asked, on the meta
device.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from feldspar.model.attention import Attention
from feldspar.model.decoder import Decoder
from feldspar.model.layers import SOFT_PROMPT, Linear
from feldspar.model.low_rank import activate, add_low_rank
from feldspar.plan.quick_shapes import QuickShapes
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings

ALL = 3
"""Products of a matrix that is trained, behind others that are trained."""


@dataclass(frozen=True)
class Products:
    """Numbers of matrix products: a forward product, and those of the backward pass."""

    matrices: Mapping[str, int]
    """Of each matrix of the blocks, also those of LoRA, by the name of its weight. Another
    matrix has ``ALL``."""
    attention: tuple[int, ...]
    """Of the scores, and of their sum over values, in each layer."""
    head: int


def all_products(n_layers: int) -> Products:
    """Return the products of a model that is trained whole."""
    return Products({}, (ALL,) * n_layers, ALL)


@lru_cache(maxsize=64)
def needed_products(
    model: ModelSettings, lora: LoraSettings | None, trained: frozenset[str]
) -> Products:
    """Return the products of a step that trains the parameters with the names ``trained``.

    ``lora`` gives the updates that act in the step.
    """
    with torch.device("meta"):
        decoder = decoder_that_trains(model, lora, trained)
        tokens = torch.empty((1, 2), dtype=torch.int64)
    matrices: dict[str, int] = {}
    attention: list[int] = []

    def record(name: str, linear: Linear, inputs: tuple[Tensor, ...]) -> None:
        matrices[f"{name}.weight"] = _products(inputs[0], linear.weight)

    def record_attention(output: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        attention.append(ALL if inputs[0].requires_grad else 1)

    for name, module in decoder.blocks.named_modules(prefix="blocks"):
        if isinstance(module, Linear):
            module.register_forward_pre_hook(
                lambda linear, inputs, name=name: record(name, linear, inputs)
            )
        if isinstance(module, Attention):
            module.output.register_forward_pre_hook(record_attention)
    with QuickShapes():
        hidden = decoder(tokens)
    return Products(matrices, tuple(attention), _products(hidden, decoder.head_weight))


def decoder_that_trains(
    model: ModelSettings, lora: LoraSettings | None, trained: Collection[str] | None
) -> Decoder:
    """Build a decoder whose ``trained`` parameters (None: all) require gradients.

    The updates of ``lora`` act.
    """
    decoder = Decoder(model, 1 if trained and SOFT_PROMPT in trained else 0)
    if lora is not None:
        add_low_rank(decoder, lora)
        activate(decoder, True)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(trained is None or name in trained)
    return decoder


def _products(given: Tensor, weight: Tensor) -> int:
    return 1 + given.requires_grad + weight.requires_grad
