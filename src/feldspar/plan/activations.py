"""What a training step saves of a decoder for its backward pass, asked of the decoder itself.

The decoder runs on the meta device, which knows shapes and no values, as on the device that the
step is planned for (``model.stand_in``).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from feldspar.model.context import SequenceContext
from feldspar.model.decoder import Decoder
from feldspar.model.layers import Linear
from feldspar.model.stand_in import standing_for
from feldspar.plan.quick_shapes import QuickShapes
from feldspar.plan.saved_activations import saved_activations
from feldspar.recipe.sections.model import ModelSettings


@dataclass(frozen=True)
class MicroBatch:
    """The sequences that one process computes at a time, and the way in which it does so."""

    sequences: int
    context_length: int
    on_accelerator: bool = False
    bfloat16: bool = False
    """Run matrix products in bfloat16 (autocast)."""
    documents: bool = False
    """Keep attention inside documents."""
    recompute: bool = False
    """Save the input of each block only, and compute the block again in the backward pass."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.sequences * self.context_length

    @property
    def device_type(self) -> str:
        """The type of the device; all accelerators count as one."""
        return "cuda" if self.on_accelerator else "cpu"

    @property
    def product_dtype(self) -> torch.dtype:
        """The type of entries that come from, or go into, a matrix product."""
        return torch.bfloat16 if self.bfloat16 else torch.float32


@lru_cache(maxsize=256)
def activation_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Return the bytes that a forward pass saves, without parameters, their copies and the head.

    With recomputation these are the inputs of all blocks, and all that the largest block saves when
    it is computed again.
    """
    with torch.device("meta"):
        decoder = Decoder(model)
        shape = (batch.sequences, batch.context_length)
        tokens = torch.empty(shape, dtype=torch.int64)
        document_ids = torch.empty(shape, dtype=torch.int64) if batch.documents else None
    for part in decoder.blocks.modules():
        if isinstance(part, Linear):
            part.to(batch.product_dtype)
    decoder.recompute_activations = batch.recompute

    def saved_bytes() -> int:
        with (
            standing_for(batch.device_type),
            QuickShapes(),
            saved_activations(decoder.parameters()) as saved,
        ):
            hidden = decoder(tokens, document_ids=document_ids)
            kept = saved.bytes
        del hidden  # It holds what was saved, which would not count without it.
        return kept

    kept = saved_bytes()
    if batch.recompute:
        decoder.recompute_activations, sizes = False, list[int]()
        decoder.blocks = nn.ModuleList(_Measured(block, sizes) for block in decoder.blocks)
        saved_bytes()
        kept += max(sizes)
    return kept


class _Measured(nn.Module):
    """A block that notes how many bytes it saves beside its input and its parameters."""

    def __init__(self, block: nn.Module, sizes: list[int]) -> None:
        super().__init__()
        self.block = block
        self.sizes = sizes

    def forward(self, x_btd: Tensor, context: SequenceContext) -> Tensor:
        with saved_activations([*self.block.parameters(), x_btd]) as saved:
            out = self.block(x_btd, context)
            self.sizes.append(saved.bytes)
        return out
