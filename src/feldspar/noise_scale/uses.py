"""What the uses of one parameter in one micro-batch tell of each example's contribution c_i to it.

A parameter used once gets |c_i|^2 from that use. An embedding that is also the output matrix gets
|E_i|^2 + |U_i|^2 + 2 <E_i, U_i>, for which both backward passes leave the rows that the example
reads. Any other sharing adds up the c_i of all uses, one example after the other, when the
micro-batch ends.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError

Kind = Literal["embedding", "matrix", "vector", "example"]
"""How a use forms c_i: gathered rows, outer products, sums over positions, one example a time."""
Share = Callable[[int], Tensor]
"""Example -> its c_i of one use, shaped as the parameter."""


class ParameterUses:
    """One parameter: how often a micro-batch uses it, and the norms that its uses told."""

    def __init__(self, name: str, owner: nn.Module, local_name: str, mask: Tensor | None) -> None:
        self.name = name
        self.mask = mask
        self._owner = owner
        self._local_name = local_name
        self.begin()

    @property
    def parameter(self) -> nn.Parameter:
        """As it is now: FSDP2 and loading replace tensors."""
        return getattr(self._owner, self._local_name)

    def begin(self) -> None:
        """Forget the micro-batch before."""
        if self.mask is not None:
            self.mask = self.mask.to(self.parameter.device)
        self._kinds: list[Kind] = []
        self._norms: list[Tensor] = []
        self._shares: list[Share] = []
        self._examples: dict[int, Tensor] = {}
        self.ids: Tensor | None = None
        """(B, S) which rows the embedding read, where there is one."""
        self._pair: list[Tensor] = []

    def called(self, kind: Kind) -> None:
        """A forward pass uses the parameter; recomputation in a backward pass does not count."""
        if not in_backward():
            self._kinds.append(kind)

    @property
    def is_tied(self) -> bool:
        """Whether the parameter is an embedding and an output matrix, once each."""
        return sorted(self._kinds) == ["embedding", "matrix"]

    @property
    def is_shared(self) -> bool:
        """Whether the c_i of several uses must be added before squaring."""
        return len(self._kinds) > 1 and not self.is_tied

    def add(self, norms: Tensor) -> None:
        """(B,) what a use adds to the squared norms."""
        self._norms.append(norms)

    def add_example(self, example: int, norm: Tensor) -> None:
        """() the squared norm of one example, from a use that takes them apart."""
        if example in self._examples:
            raise self._went_back_twice()
        self._examples[example] = norm

    def defer(self, share: Share) -> None:
        """Keep what a use of a shared parameter contributes until the micro-batch ends."""
        self._shares.append(share)

    def add_tied(self, part: Tensor) -> None:
        """(B, S, d) one factor of <E_i, U_i> at the rows ``ids``: of E or of U, in any order."""
        if self.is_tied:
            self._pair.append(part if self.mask is None else part * self.mask[self.ids])

    def add_vectors(self, vectors: Tensor) -> None:
        """(B, ...) the c_i themselves."""
        if self.mask is not None:
            vectors = vectors * self.mask
        if self.is_shared:
            self.defer(lambda example: vectors[example])
        else:
            self.add(vectors.flatten(1).square().sum(1))

    def finish(self, n_examples: int) -> Tensor | None:
        """(B,) squared norms of the micro-batch; None if no gradient came."""
        told = len(self._norms) + bool(self._examples)
        if (self._shares and told) or told > max(1, len(self._kinds)):
            raise self._went_back_twice()
        if self._shares:
            return torch.stack([self._joint_norm(example) for example in range(n_examples)])
        if self._examples:
            none = torch.zeros_like(next(iter(self._examples.values())))
            return torch.stack([self._examples.get(i, none) for i in range(n_examples)])
        if not self._norms:
            return None
        cross = 2 * (self._pair[0] * self._pair[1]).sum((1, 2)) if len(self._pair) == 2 else 0.0
        return torch.stack(self._norms).sum(0) + cross

    def _joint_norm(self, example: int) -> Tensor:
        shares = (share(example) for share in self._shares)
        total = sum(shares, start=torch.zeros((), device=self.parameter.device))
        return (total if self.mask is None else total * self.mask).square().sum()

    def _went_back_twice(self) -> UserError:
        return UserError(
            f"{self.name}: a micro-batch went backward more than once",
            do="wrap each forward and backward pass in a microbatch() of its own; run looped "
            "layers without reentrant checkpointing",
        )


def in_backward() -> bool:
    """Tell whether autograd is at work: a forward pass is then a recomputation of checkpointing."""
    return torch._C._current_graph_task_id() != -1
