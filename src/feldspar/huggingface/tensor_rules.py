"""Tables that say which tensors of a class make one of ours, and in which layout.

One table serves both ways: ``Layout.join`` makes our tensor out of the class's, ``Layout.split``
gives them back. The two are exact inverses, bit for bit, so a model that is imported and exported
again has the same tensors. Layouts work on weights (rows, columns) and on biases (rows) alike, and
on meta tensors, which have shapes and no values.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.recipe.sections.model import ModelSettings


class Layout(Protocol):
    """Two functions that are inverses of each other, bit for bit."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return our tensor made of the class's tensors."""
        ...

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the class's tensors that our tensor is made of; they may be views of it."""
        ...


@dataclass(frozen=True)
class Same:
    """The class stores the tensor as we do."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the one tensor."""
        (tensor,) = parts
        return tensor

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the one tensor."""
        return (tensor,)


@dataclass(frozen=True)
class Rows:
    """Our tensor stacks the class's tensors: ``rows`` of the first, then of the second, and so on.

    Examples are queries, keys and values, or the gate and the map beside it. The order of the names
    in a rule is our order, whatever the class calls them.
    """

    rows: tuple[int, ...]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Stack the tensors."""
        return torch.cat(list(parts))

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Cut the tensor at the given numbers of rows."""
        return tensor.split(list(self.rows))


@dataclass(frozen=True)
class Transposed:
    """The class stores matrices as (in, out), as GPT-2's Conv1D does; biases are as they are.

    ``inner`` is the layout of the matrices after their transposition. With ``Rows`` as the inner
    layout, the class stores the parts as matrices of their own; a fused matrix, whose columns are
    queries, keys and values, needs the inner layout ``Same``.
    """

    inner: Layout = Same()

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Transpose the tensors, then join them."""
        return self.inner.join([part.t() for part in parts])

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Split the tensor, then transpose the parts."""
        return tuple(part.t() for part in self.inner.split(tensor))


@dataclass(frozen=True)
class Interleaved:
    """One tensor of the class holds groups of rows, in each group some rows of each part of ours.

    ``widths`` are the rows that a group holds of each part. GPT-NeoX, BLOOM and Falcon's old form
    store a group for each head: its query, its key, its value, each of head_dim rows. Falcon's new
    form stores a group for each key head: all of its queries, the key, the value. Our tensor holds
    all rows of the first part, then all rows of the second, and so on.
    """

    groups: int
    widths: tuple[int, ...]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Collect the rows of each part from all groups."""
        (tensor,) = parts
        grouped = tensor.unflatten(0, (self.groups, sum(self.widths)))
        return torch.cat([part.flatten(0, 1) for part in grouped.split(list(self.widths), 1)])

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Give each group its rows of each part."""
        parts = tensor.split([self.groups * width for width in self.widths])
        return (
            torch.cat([part.unflatten(0, (self.groups, -1)) for part in parts], 1).flatten(0, 1),
        )


@dataclass(frozen=True)
class TensorRule:
    """One tensor of ours, and the class's tensors that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    layout: Layout = Same()


def query_key_value_rows(settings: ModelSettings) -> Rows:
    """Return the layout of queries, keys and values that a class stores apart."""
    keys = settings.kv_heads * settings.head_width
    return Rows((settings.n_heads * settings.head_width, keys, keys))


def query_key_value_groups(settings: ModelSettings) -> Interleaved:
    """Return the layout of a matrix with a group of rows for each key head.

    Where each query head has a key head of its own, the groups are the heads.
    """
    width = settings.head_width
    queries = settings.n_heads // settings.kv_heads * width
    return Interleaved(settings.kv_heads, (queries, width, width))


def gate_and_up_rows(settings: ModelSettings) -> Rows:
    """Return the layout of gate and up matrices that a class stores apart."""
    return Rows((settings.d_ff, settings.d_ff))


def linear(
    ours: str, theirs: str | tuple[str, ...], bias: bool, layout: Layout = Same()
) -> Iterator[TensorRule]:
    """Yield the rules of a linear map or a norm: of its weight and, with ``bias``, of its bias.

    ``ours`` and ``theirs`` name modules; the bias uses the layout of the weight.
    """
    modules = (theirs,) if isinstance(theirs, str) else theirs
    for kind in ("weight", "bias") if bias else ("weight",):
        names = tuple(f"{module}.{kind}" for module in modules)
        yield TensorRule(f"{ours}.{kind}", names, layout)


def in_each_block(
    rules: Iterable[TensorRule], settings: ModelSettings, theirs: str
) -> Iterator[TensorRule]:
    """Yield the rules of one block for each block.

    The names of ``rules`` are those inside a block; ``theirs`` is the class's name of a block with
    ``{}`` for its number, like ``model.layers.{}.``
    """
    block = tuple(rules)
    for index in range(settings.n_layers):
        prefix = theirs.format(index)
        for rule in block:
            names = tuple(prefix + name for name in rule.theirs)
            yield TensorRule(f"blocks.{index}.{rule.ours}", names, rule.layout)


def found_names(
    rules: Sequence[TensorRule], names: Iterable[str], prefix: str, ignored: Sequence[str]
) -> dict[str, str]:
    """Map each name that the rules use to the name in a folder, which may lack ``prefix``.

    ``ignored`` are regular expressions of names, without the prefix, that a folder may hold beside.
    Raises UserError that names a tensor that is missing, and one that no rule knows.
    """
    stored = {name.removeprefix(prefix): name for name in names}
    found = {}
    for rule in rules:
        for name in rule.theirs:
            key = name.removeprefix(prefix)
            if key not in stored:
                raise UserError(
                    f"the weights lack the tensor {name}, which the configuration promises",
                    do="get the whole folder again from where it was published",
                )
            found[name] = stored.pop(key)
    unknown = next((n for n in stored if not any(re.fullmatch(p, n) for p in ignored)), None)
    if unknown is not None:
        raise UserError(
            f"the weights hold the tensor {stored[unknown]}, which a model of this configuration "
            "does not have",
            found=f"{len(stored):,} such tensors" if len(stored) > 1 else None,
            do="check that config.json and the weights belong together",
        )
    return found


def their_shapes(
    rules: Sequence[TensorRule], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the class's tensors, from the ``shapes`` of ours."""
    found: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        ours = torch.empty(shapes[rule.ours], device="meta")
        parts = rule.layout.split(ours)
        found |= {n: tuple(part.shape) for n, part in zip(rule.theirs, parts, strict=True)}
    return found
