"""Tensors of a class as ours, and ours as those of a class, each converted when it is read."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from feldspar.huggingface.tensor_rules import TensorRule, found_names, their_shapes
from feldspar.huggingface.weights import require_finite, require_header
from feldspar.runtime.tensor_file import LazyTensors, TensorHeader, header_of


class OurTensors(LazyTensors):
    """Our tensors, joined from those of a class by its rules.

    Names, shapes and types are checked at once, without reading a tensor; a tensor with numbers
    that are not finite is refused when it is read. ``prefix`` and ``ignored`` are the adapter's.
    Raises UserError that names a tensor that is missing, unknown, or of another shape.
    """

    def __init__(
        self,
        theirs: LazyTensors,
        rules: Sequence[TensorRule],
        shapes: Mapping[str, tuple[int, ...]],
        prefix: str = "",
        ignored: Sequence[str] = (),
    ) -> None:
        self._theirs = theirs
        self._names = found_names(rules, theirs, prefix, ignored)
        by_name = {rule.ours: rule for rule in rules}
        self._rules = {name: by_name[name] for name in shapes}
        self._shapes = dict(shapes)
        for name, shape in their_shapes(rules, shapes).items():
            stored = self._names[name]
            require_header(stored, theirs.header(stored), shape)

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        parts = [self._theirs.header(self._names[n]).dtype for n in self._rules[name].theirs]
        dtype = parts[0]
        for part in parts[1:]:
            dtype = torch.promote_types(dtype, part)
        return TensorHeader(self._shapes[name], dtype)

    def __getitem__(self, name: str) -> Tensor:
        """Read the class's tensors and join them."""
        rule = self._rules[name]
        parts = [self._theirs[self._names[their]] for their in rule.theirs]
        for their, part in zip(rule.theirs, parts, strict=True):
            require_finite(self._names[their], part)
        return rule.layout.join(parts).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


class TheirTensors(LazyTensors):
    """The class's tensors, split from ours by its rules, in their order.

    ``dtype`` is the type to write; None keeps the type of each tensor. Each of our tensors is read
    once where the class's are read in their order.
    """

    def __init__(
        self,
        ours: Mapping[str, Tensor],
        rules: Sequence[TensorRule],
        dtype: torch.dtype | None = None,
    ) -> None:
        self._ours, self._dtype = ours, dtype
        self._rules = {name: rule for rule in rules for name in rule.theirs}
        shapes = {rule.ours: header_of(ours, rule.ours).shape for rule in rules}
        self._shapes = their_shapes(rules, shapes)
        self._last: tuple[str, tuple[Tensor, ...]] = ("", ())

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        stored = header_of(self._ours, self._rules[name].ours).dtype
        return TensorHeader(self._shapes[name], self._dtype or stored)

    def __getitem__(self, name: str) -> Tensor:
        """Split our tensor and return the class's."""
        rule = self._rules[name]
        if self._last[0] != rule.ours:
            self._last = ("", ())  # free the tensor before the next is read
            self._last = (rule.ours, rule.layout.split(self._ours[rule.ours]))
        part = self._last[1][rule.theirs.index(name)]
        return part.to(self._dtype or part.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)
