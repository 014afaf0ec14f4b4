"""Choose the products of masked matrices: sparse, or dense with zeros, whichever is faster here.

Both give the same values up to rounding. So the choice is recorded, and a resumed run repeats it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from feldspar.core.progress import progress, say
from feldspar.model.decoder import Decoder
from feldspar.model.layers import Linear
from feldspar.plan.products import ALL
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.collectives import on_first
from feldspar.runtime.device import choose_compile
from feldspar.sparsity.choice import Kind, Wanted, choose_products
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.products import Product, sparse_product

PRODUCTS_KEY = "sparse_products"
"""The key of a checkpoint's state with the names of the matrices that have sparse products."""
FEWER = 0.8
"""Products are chosen again when masks keep only this share of what they kept at the last
choice."""


@dataclass
class MaskedProducts:
    """The products of a decoder's masked matrices."""

    decoder: Decoder
    wanted: Wanted
    dtype: torch.dtype
    """Precision of the products."""
    device: torch.device
    kept_at_choice: int = 0
    """Entries that the masks kept when the products were chosen."""
    _sparse: dict[str, Product] = field(default_factory=dict)
    """Sparse products by the names of the matrices that have one."""
    _dropped: dict[str, int] = field(default_factory=dict)
    """Entries of these matrices that their masks drop."""
    _dense_step: bool = False
    """True while a step multiplies all matrices dense."""

    def choose(self, masks: Masks, tokens: int) -> dict[str, Any]:
        """Choose for micro-batches of ``tokens`` tokens; return the choice for the run's events.

        Each process must call this; all make the choice of the first one.
        """
        decided = on_first(lambda: self._measured(masks.tensors, tokens))
        self.kept_at_choice = kept_entries(masks)
        self._set(masks, decided["matrices"])
        return decided

    def follow(self, masks: Masks, tokens: int) -> None:
        """Multiply by the entries that other masks keep; choose again where these are far fewer."""
        if kept_entries(masks) < FEWER * self.kept_at_choice:
            self.choose(masks, tokens)
        else:
            self._set(masks, self._sparse)

    def begin_step(self, dense: bool) -> None:
        """Multiply all matrices dense in this step, for gradients of all entries, or as chosen."""
        if dense != self._dense_step:
            self._install(dense)

    def skipped_flops(self, frozen: Collection[str] = ()) -> float:
        """Return the FLOPs of a token that sparse products skip in forward and backward pass.

        ``frozen`` names matrices that are counted without the product for their own gradient.
        """
        return sum(
            2.0 * min(product.passes, ALL - (name in frozen)) * self._dropped[name]
            for name, product in self._sparse.items()
        )

    def state(self) -> dict[str, Any]:
        """Return the choice for a checkpoint; nothing where masks are absent."""
        if not self.kept_at_choice:
            return {}
        return {PRODUCTS_KEY: {"matrices": sorted(self._sparse), "kept": self.kept_at_choice}}

    def resume(self, state: Mapping[str, Any], masks: Masks) -> None:
        """Repeat the choice in a checkpoint's state."""
        choice = state.get(PRODUCTS_KEY, {"matrices": [], "kept": kept_entries(masks)})
        self.kept_at_choice = choice["kept"]
        self._set(masks, choice["matrices"])
        if lost := set(choice["matrices"]) - set(self._sparse):
            say(
                f"warning: {len(lost)} matrices that the run has multiplied sparse are multiplied "
                "dense on this machine: values differ by rounding"
            )

    def _set(self, masks: Masks, names: Collection[str]) -> None:
        """Multiply the named matrices sparse, as far as this machine can."""
        products = {
            name: sparse_product(masks.tensors[name], self.dtype, self.device)
            for name in names
            if name in masks.tensors
        }
        self._sparse = {name: own for name, own in products.items() if own is not None}
        self._dropped = {name: dropped_entries(masks.tensors[name]) for name in self._sparse}
        self._install(dense=False)

    def _install(self, dense: bool) -> None:
        """Give each linear map its sparse product, or none."""
        self._dense_step = dense
        for name, module in self.decoder.named_modules():
            if isinstance(module, Linear):
                module.product = None if dense else self._sparse.get(f"{name}.weight")

    def _measured(self, masks: Mapping[str, Tensor], tokens: int) -> dict[str, Any]:
        """Measure, print and return the choice."""
        kinds = {name: Kind.of(mask) for name, mask in masks.items()}
        keep_freed_pages()  # as in the steps that follow
        with progress("compiling and timing sparse products", unit=""):
            choice = choose_products(
                kinds, masks.__getitem__, self.wanted, tokens, self.dtype, self.device
            )
        if choice.speeds:
            say(str(choice))
        return choice.record()


def wanted_products(runtime: RuntimeSettings, device: torch.device) -> Wanted:
    """Return ``runtime.masked_products``; blocks that are compiled have dense products only."""
    return "dense" if choose_compile(runtime, device) else runtime.masked_products


def kept_entries(masks: Masks) -> int:
    """Return the number of entries that all masks together keep."""
    return sum(int(mask.sum()) for mask in masks.tensors.values())


def dropped_entries(mask: Tensor) -> int:
    """Return the number of entries that a mask drops."""
    return mask.numel() - int(mask.sum())
