"""Channels and strides of a network's maps by index, as timm tells them."""

from collections.abc import Iterable, Sequence
from typing import Any

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import STEM_STRIDE, RevBiFPNSettings


class FeatureInfo(list[dict[str, Any]]):
    """One entry a map, finest first, with ``num_chs``, ``reduction``, ``module`` and ``index``.

    It is the list that timm's models carry and has the methods of timm's class of this name. The
    methods tell of the maps ``out_indices``, or of the index or indices that are asked for.
    """

    def __init__(self, entries: Iterable[dict[str, Any]], out_indices: Sequence[int]) -> None:
        super().__init__(entries)
        self.out_indices = tuple(out_indices)

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the number of channels of each map."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the stride of each map in pixels of the image."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the name of the module that gives each map."""
        return self.get("module", idx)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """Return one value for an index, a list of values otherwise."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[index][key] for index in (self.out_indices if idx is None else idx)]

    def get_dicts(
        self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None
    ) -> Any:
        """Return the entry of an index or those of several, with ``keys`` only if given."""
        if isinstance(idx, int):
            return self[idx] if keys is None else {key: self[idx][key] for key in keys}
        chosen = self.out_indices if idx is None else idx
        return [self.get_dicts(keys, index) for index in chosen]


def feature_info(
    settings: RevBiFPNSettings, with_neck: bool, out_indices: Sequence[int] | None = None
) -> FeatureInfo:
    """Describe the maps of the backbone, or those of the neck."""
    widths = settings.head_channels if with_neck else settings.channels
    entries = [
        {
            "num_chs": width,
            "reduction": STEM_STRIDE * 2**index,
            "module": f"neck.{index}" if with_neck else "backbone",
            "index": index,
        }
        for index, width in enumerate(widths)
    ]
    return FeatureInfo(entries, range(len(entries)) if out_indices is None else out_indices)


def chosen_maps(out_indices: int | Sequence[int] | None, n_maps: int) -> tuple[int, ...]:
    """Return the indices of maps from 0 on: all for None, the last n for a number n.

    An index below 0 counts from the coarsest map. Raises UserError for others than there are.
    """
    if isinstance(out_indices, int):
        wanted = tuple(range(-out_indices, 0))
    else:
        wanted = tuple(range(n_maps) if out_indices is None else out_indices)
    if not wanted or not all(-n_maps <= index < n_maps for index in wanted):
        raise UserError(
            "out_indices: there are no such maps",
            found=out_indices,
            allowed=f"indices from {-n_maps} to {n_maps - 1}, or a number of maps up to {n_maps}",
        )
    return tuple(index % n_maps for index in wanted)
