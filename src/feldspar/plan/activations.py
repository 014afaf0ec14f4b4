"""Tensors that a decoder's training step saves for its backward pass, and their bytes.

The decoder itself is run on the meta device, whose tensors have shapes and no values, in the way
that it runs on the planned device (``model.stand_in``).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from feldspar.model.context import SequenceContext
from feldspar.model.layers import Linear
from feldspar.model.stand_in import standing_for
from feldspar.plan.products import decoder_that_trains
from feldspar.plan.quick_shapes import QuickShapes
from feldspar.plan.storage_bytes import saved_activations
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings
from feldspar.reversible.chain import ActivationMemory


@dataclass(frozen=True)
class MicroBatch:
    """One process's micro-batch, and the way in which the process computes it."""

    sequences: int
    context_length: int
    on_accelerator: bool = False
    bfloat16: bool = False
    """Run matrix products in bfloat16 (autocast)."""
    documents: bool = False
    """Keep attention inside documents."""
    activation_memory: ActivationMemory = "store"
    """The name of what the process saves for the backward pass."""

    @property
    def tokens(self) -> int:
        """The number of tokens of all sequences."""
        return self.sequences * self.context_length

    @property
    def device_type(self) -> str:
        """The type of the device. All accelerators count as one type."""
        return "cuda" if self.on_accelerator else "cpu"

    @property
    def product_dtype(self) -> torch.dtype:
        """The type of the entries that matrix products read and write."""
        return torch.bfloat16 if self.bfloat16 else torch.float32


@lru_cache(maxsize=256)
def activation_bytes(
    model: ModelSettings,
    batch: MicroBatch,
    lora: LoraSettings | None = None,
    trained: frozenset[str] | None = None,
) -> int:
    """Return the bytes that a forward pass saves, without parameters, their copies and the head.

    ``lora`` gives the updates that act, ``trained`` the names of the trained parameters (None:
    all). With recomputation these are the inputs of all blocks, and all that the largest block
    saves when it is computed again. A reversible pass saves the last outputs, and computes one
    branch at a time.
    """
    with torch.device("meta"):
        decoder = decoder_that_trains(model, lora, trained)
        shape = (batch.sequences, batch.context_length)
        tokens = torch.empty(shape, dtype=torch.int64)
        document_ids = torch.empty(shape, dtype=torch.int64) if batch.documents else None
    for part in decoder.blocks.modules():
        if isinstance(part, Linear):
            part.to(batch.product_dtype)
    decoder.activation_memory = batch.activation_memory

    def saved_bytes() -> int:
        with (
            standing_for(batch.device_type),
            QuickShapes(),
            saved_activations(decoder.parameters()) as saved,
        ):
            hidden = decoder(tokens, document_ids=document_ids)
            kept = saved.bytes
        del hidden  # until here it kept alive the saved tensors, so that they were counted
        return kept

    kept = saved_bytes()
    if batch.activation_memory != "store":
        decoder.activation_memory = "store"
        measured = [_Measured(block) for block in decoder.blocks]
        decoder.blocks = nn.ModuleList(measured)
        saved_bytes()
        together = sum if batch.activation_memory == "recompute" else max
        kept += max(together(block.sizes) for block in measured)
    return kept


class _Measured(nn.Module):
    """A block that records the bytes each call saves, without its input and its parameters."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.sizes: list[int] = []

    def forward(self, x_btd: Tensor, context: SequenceContext, *branch: Any) -> Tensor:
        with saved_activations([*self.block.parameters(), x_btd]) as saved:
            out = self.block(x_btd, context, *branch)
            self.sizes.append(saved.bytes)
        return out
