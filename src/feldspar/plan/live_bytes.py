"""Measure the largest number of bytes in living tensors while a function runs, by storage."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from feldspar.plan.quick_shapes import QuickShapes


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


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for value in tree_leaves(values):
        if isinstance(value, torch.Tensor):
            yield value.untyped_storage()
