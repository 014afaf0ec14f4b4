"""LoRA (2106.09685): low-rank updates beside the linear maps of a decoder's blocks.

A decoder gets the updates by ``add_low_rank``, and they act while they are active. ``merge`` adds
them to the weights, and ``remove_low_rank`` gives back a plain decoder. Names of other parameters
never change. A fused matrix has one A for all its parts, and rows of B for each of its parts that
is a target.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRole, Role
from feldspar.model.attention import Attention
from feldspar.model.decoder import Decoder
from feldspar.model.layers import Linear
from feldspar.recipe.sections.lora import LoraSettings

FUSED = "attention.query_key_value"
ROLES = (Role.LORA_A, Role.LORA_B)
"""Roles of the matrices of LoRA."""


class LowRankLinear(Linear):
    """A linear map, ``x @ weight.T + bias``, to which ``scale * x @ A.T @ B.T`` is added while it
    is active.

    ``lora_a`` holds A (rank, in). ``lora_b`` holds B (rows, rank), where the rows are those of the
    output's ``parts``.
    """

    def __init__(self, base: Linear, parts: tuple[slice, ...], settings: LoraSettings) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.parameter_roles = base.parameter_roles
        self.parts = parts
        self.scale = settings.scale
        self.dropout = settings.dropout
        self.active = False
        rows = sum(self._lengths)
        fan_in = base.parameter_roles["weight"].fan_in
        self.lora_a = Linear(
            base.in_features, settings.rank, False, ParameterRole(Role.LORA_A, fan_in)
        )
        self.lora_b = Linear(settings.rank, rows, False, ParameterRole(Role.LORA_B))

    @property
    def _lengths(self) -> list[int]:
        return [part.stop - part.start for part in self.parts]

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # torch names it input
        """Map (..., in) to (..., out)."""
        out = super().forward(x)
        if not self.active:
            return out
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        # The factor multiplies the smallest of the tensors.
        update = self.lora_b(self.lora_a(x) * self.scale)
        for part, piece in zip(self.parts, update.split(self._lengths, dim=-1), strict=True):
            out[..., part].add_(piece)
        return out

    def update(self) -> Tensor:
        """Return ``scale * B @ A`` in the shape of the weight, with zeros in rows without
        update."""
        down, up = (_whole(part.weight) for part in (self.lora_a, self.lora_b))
        return whole_update(up, self.parts, self.out_features) @ down * self.scale

    def plain(self) -> Linear:
        """Return the map without its update."""
        weight, bias = self.weight, self.bias
        with torch.device("meta"):
            base = Linear(
                *(self.in_features, self.out_features, bias is not None),
                self.parameter_roles["weight"],
            )
        base.weight, base.bias = weight, bias
        return base


def whole_update(up: Tensor, parts: tuple[slice, ...], n_rows: int) -> Tensor:
    """Return B (rows of the parts, rank) with ``n_rows`` rows; those outside the parts are 0."""
    whole = up.new_zeros(n_rows, up.shape[1])
    lengths = [part.stop - part.start for part in parts]
    for part, piece in zip(parts, up.split(lengths), strict=True):
        whole[part] = piece
    return whole


def add_low_rank(decoder: Decoder, settings: LoraSettings, key: str = "lora") -> None:
    """Give the targets their matrices, without values and not active.

    Raises UserError, with the recipe's ``key``, for a target that matches nothing, and for a rank
    above a side of a matrix.
    """
    for name, parts in _targets(decoder, settings, key).items():
        base = decoder.get_submodule(name)
        assert isinstance(base, Linear), "only linear maps are offered as targets"
        most = min(base.in_features, base.out_features)
        if settings.rank > most:
            raise UserError(
                f"{key}.rank: {settings.rank} is more than a side of {name}, so the update would "
                "not be of low rank",
                allowed=f"1 to {most}",
            )
        decoder.set_submodule(name, LowRankLinear(base, parts, settings))


def low_rank_layers(decoder: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """Yield name and module of each linear map that has a low-rank update."""
    for name, module in decoder.named_modules():
        if isinstance(module, LowRankLinear):
            yield name, module


def low_rank_names(decoder: nn.Module) -> set[str]:
    """Return the names of the parameters A and B."""
    return {
        f"{name}.{part}.weight"
        for name, _ in low_rank_layers(decoder)
        for part in ("lora_a", "lora_b")
    }


def activate(decoder: Decoder, active: bool) -> None:
    """Let the updates act from now on, or let them rest."""
    for _, layer in low_rank_layers(decoder):
        layer.active = active


@torch.no_grad()
def merge(decoder: Decoder) -> None:
    """Add each update to its weight. Call ``activate`` or ``remove_low_rank`` afterwards."""
    for _, layer in low_rank_layers(decoder):
        update, weight = layer.update(), layer.weight
        if _is_split(weight):
            from torch.distributed.tensor import distribute_tensor  # it loads torch's compiler

            # Each process has the whole update and takes its part without an exchange.
            mesh, placements = weight.device_mesh, weight.placements  # pyrefly: ignore
            update = distribute_tensor(update, mesh, placements, src_data_rank=None)
        weight.add_(update)


def remove_low_rank(decoder: Decoder) -> None:
    """Replace each linear map that has an update by the map without it."""
    for name, layer in list(low_rank_layers(decoder)):
        decoder.set_submodule(name, layer.plain())


def _targets(decoder: Decoder, settings: LoraSettings, key: str) -> Mapping[str, tuple[slice, ...]]:
    """Return the parts of each matrix that the targets name, in the order of the modules."""
    offered = list(_offered(decoder))
    chosen: set[tuple[str, int]] = set()
    for target in settings.targets:
        matched = {
            (name, index)
            for name, parts in offered
            for index, (label, _) in enumerate(parts)
            if target in ("hidden", label) or fnmatchcase(name, target)
        }
        if not matched:
            labels = dict.fromkeys(label for _, parts in offered for label, _ in parts)
            raise UserError(
                f"{key}.targets: {target!r} matches no matrix of the blocks",
                allowed=["hidden", *labels, "globs such as blocks.*.attention.*"],
            )
        chosen |= matched
    return {
        name: found
        for name, parts in offered
        if (found := tuple(p for index, (_, p) in enumerate(parts) if (name, index) in chosen))
    }


def _offered(decoder: Decoder) -> Iterator[tuple[str, list[tuple[str, slice]]]]:
    """Yield each matrix of the blocks by its module's name, with its parts by label."""
    for name, module in decoder.blocks.named_modules(prefix="blocks"):
        if not isinstance(module, Linear):
            continue
        if name.endswith(FUSED):
            attention = decoder.get_submodule(name.rpartition(".")[0])
            assert isinstance(attention, Attention)
            query, key = attention.query_width, attention.query_width + attention.key_width
            end = key + attention.key_width
            ranges = ("query", slice(0, query)), ("key", slice(query, key))
            yield name, [*ranges, ("value", slice(key, end))]
        else:
            yield name, [("_".join(name.split(".")[-2:]), slice(0, module.out_features))]


def _whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor of all processes."""
    return tensor.full_tensor() if _is_split(tensor) else tensor  # pyrefly: ignore


def _is_split(tensor: Tensor) -> bool:
    """Tell whether a tensor is a DTensor, split over processes."""
    return hasattr(tensor, "full_tensor")
