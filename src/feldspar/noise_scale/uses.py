"""Per-example squared gradient norm of one parameter, over all places where a micro-batch uses it.

c_i is the contribution of example i to the gradient. A parameter that is used once gets |c_i|^2
from this use. An embedding that is also the output matrix gets |E_i|^2 + |U_i|^2 + 2 <E_i, U_i>;
for the last term both backward passes leave the rows that the example reads. For any other sharing
the c_i of all uses are added, one example after the other, at the end of the micro-batch.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError

Kind = Literal["embedding", "matrix", "vector", "example"]
"""Way in which a use forms c_i: gathered rows, outer products, sums over positions, or one example
at a time."""
Share = Callable[[int], Tensor]
"""Function from an example to its c_i of one use, shaped as the parameter."""


class ParameterUses:
    """Uses of one parameter: their number in a micro-batch, and the norms that they reported."""

    def __init__(self, name: str, owner: nn.Module, local_name: str, mask: Tensor | None) -> None:
        self.name = name
        self.mask = mask
        self._owner = owner
        self._local_name = local_name
        self.begin()

    @property
    def parameter(self) -> nn.Parameter:
        """Current parameter; FSDP2 and loading replace tensors."""
        return getattr(self._owner, self._local_name)

    def begin(self) -> None:
        """Forget the last micro-batch."""
        if self.mask is not None:
            self.mask = self.mask.to(self.parameter.device)
        self._kinds: list[Kind] = []
        self._norms: list[Tensor] = []
        self._shares: list[Share] = []
        self._examples: dict[int, Tensor] = {}
        self.ids: Tensor | None = None
        """(B, S): rows that the embedding read, if there is one."""
        self._pair: list[Tensor] = []

    def called(self, kind: Kind) -> None:
        """Record a use by a forward pass; recomputation in a backward pass does not count."""
        if not in_backward():
            self._kinds.append(kind)

    @property
    def is_tied(self) -> bool:
        """True if the parameter is used once as an embedding and once as an output matrix."""
        return sorted(self._kinds) == ["embedding", "matrix"]

    @property
    def is_shared(self) -> bool:
        """True if the c_i of several uses must be added before squaring."""
        return len(self._kinds) > 1 and not self.is_tied

    def add(self, norms: Tensor) -> None:
        """Add (B,) squared norms of a use."""
        self._norms.append(norms)

    def add_example(self, example: int, norm: Tensor) -> None:
        """Add the squared norm () of one example, from a use that runs one example at a time."""
        if example in self._examples:
            raise self._went_back_twice()
        self._examples[example] = norm

    def defer(self, share: Share) -> None:
        """Keep the share of one use of a shared parameter until the end of the micro-batch."""
        self._shares.append(share)

    def add_tied(self, part: Tensor) -> None:
        """Add one factor (B, S, d) of <E_i, U_i> at the rows ``ids``: of E or of U, in any
        order."""
        if self.is_tied:
            self._pair.append(part if self.mask is None else part * self.mask[self.ids])

    def add_vectors(self, vectors: Tensor) -> None:
        """Add the c_i themselves (B, ...)."""
        if self.mask is not None:
            vectors = vectors * self.mask
        if self.is_shared:
            self.defer(lambda example: vectors[example])
        else:
            self.add(vectors.flatten(1).square().sum(1))

    def finish(self, n_examples: int) -> Tensor | None:
        """Return the squared norms (B,) of the micro-batch; None if no gradient came."""
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
            f"{self.name}: a micro-batch had more than one backward pass",
            do="put each forward and backward pass in its own microbatch(); run looped "
            "layers without reentrant checkpointing",
        )


def in_backward() -> bool:
    """Tell whether autograd is running: then a forward pass is a recomputation of checkpointing."""
    return torch._C._current_graph_task_id() != -1
