"""Measure the bytes of tensors while a module runs, counted by storage.

``saved_activations`` counts the tensors that autograd saves for a backward pass, ``peak_bytes`` all
living tensors. The module may be on the meta device: its tensors then have shapes and storages, but
no memory.
"""

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from feldspar.plan.quick_shapes import QuickShapes


@dataclass
class SavedActivations:
    """The storages that autograd has saved and not yet released, each counted once."""

    left_out: set[int]
    """The keys of storages that do not count."""
    bytes: int = 0
    """Bytes that are saved at the moment."""
    most_bytes: int = 0
    """The largest value of ``bytes`` so far."""
    _times_saved: dict[int, int] = field(default_factory=dict, repr=False)

    def pack(self, tensor: Tensor) -> "_Saved":
        """Count the storage of a tensor that autograd saves, until autograd releases it."""
        # Detach the tensor: a result holds its operation, which would hold the result.
        saved, key = _Saved(tensor.detach()), _storage_key(tensor)
        if key in self.left_out:
            return saved
        size = tensor.untyped_storage().nbytes()
        times = self._times_saved.get(key, 0)
        self._times_saved[key] = times + 1
        if not times:
            self.bytes += size
            self.most_bytes = max(self.most_bytes, self.bytes)
        # The callback runs before the tensor is released, so that no other storage has its key yet.
        weakref.finalize(saved, self._release, key, size)
        return saved

    def _release(self, key: int, size: int) -> None:
        self._times_saved[key] -= 1
        if not self._times_saved[key]:
            del self._times_saved[key]
            self.bytes -= size


@contextmanager
def saved_activations(left_out: Iterable[Tensor]) -> Generator[SavedActivations]:
    """Count the tensors that autograd saves inside the context.

    Run the forward pass in the context, and the backward pass too where that saves tensors anew, as
    reversible blocks do. ``left_out`` are tensors whose storages do not count, as a rule a module's
    parameters and buffers; the caller keeps them alive. What ``torch.utils.checkpoint`` computes
    again is not seen.
    """
    counted = SavedActivations({_storage_key(tensor) for tensor in left_out})
    with saved_tensors_hooks(counted.pack, lambda saved: saved.tensor):
        yield counted


class _Saved:
    """A saved tensor. Autograd drops it when the backward pass has used it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage_key(tensor: Tensor) -> int:
    """Return a number that is equal for two living tensors if and only if they share a storage.

    Storages on the meta device have no data, so that the storage's own address is used.
    """
    return tensor.untyped_storage()._cdata


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the largest sum of bytes that ``run`` keeps alive, beyond those before it.

    Works for tensors with values and on the meta device. Memory that a library allocates inside one
    operation is not counted.
    """
    with _Live() as live:
        run()
    return live.peak_bytes


class _Live(QuickShapes):
    """Counts the storages that operations return, until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        # A view or an operation in place allocates nothing.
        read = {storage._cdata for storage in _storages([args, kwargs])}
        for storage in _storages(result):
            if storage._cdata not in read:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            n_bytes = storage.nbytes()
            self.live_bytes += n_bytes
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._remove, key, n_bytes)

    def _remove(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.live_bytes -= n_bytes


def _storages(value: Any) -> Iterator[torch.UntypedStorage]:
    """Yield the storages of the tensors in nested lists, tuples and dictionaries.

    This is called twice an operation; torch's own walk through such values takes far longer.
    """
    if isinstance(value, torch.Tensor):
        yield value.untyped_storage()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _storages(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _storages(item)
