"""Sum over processes: squared norms of contributions, and gradients that FSDP2 split.

Data parallelism averages the gradients of the processes. So an example's contribution to the
average is its contribution to its process's gradient divided by the number of processes.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Shard

from feldspar.core.errors import UserError
from feldspar.noise_scale.products import widened


def n_processes(group: dist.ProcessGroup | None) -> int:
    """Return the number of processes in ``group`` (None: all of the run)."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


def sum_over_processes(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sums of a float64 vector, in one message."""
    if n_processes(group) > 1:
        values = values.contiguous()
        dist.all_reduce(values, group=group)
    return values


def gather_examples(
    columns: Tensor, counts: Sequence[int], group: dist.ProcessGroup | None
) -> Tensor:
    """Return the columns (P, n) of all processes side by side; ``counts`` gives the number
    of each."""
    if n_processes(group) == 1:
        return columns
    padded = columns.new_zeros(max(counts), len(columns))
    padded[: columns.shape[1]] = columns.t()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).t()


def squared_gradients(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    """Return the squared norms (P,) of the gradients, float64; 0 for a missing gradient.

    Parts of a parameter that FSDP2 split are summed over the processes that share it, not over
    copies.
    """
    local: dict[int, Tensor] = {}
    split: dict[dist.ProcessGroup, list[int]] = defaultdict(list)
    for place, parameter in enumerate(parameters):
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            raise UserError("sparse gradients are not supported here", allowed="dense gradients")
        if isinstance(gradient, DTensor):
            for axis, placement in enumerate(gradient.placements):
                if isinstance(placement, Partial):
                    raise UserError("a gradient is not reduced over processes yet")
                if isinstance(placement, Shard):
                    split[gradient.device_mesh.get_group(axis)].append(place)
            gradient = gradient.to_local()
        local[place] = widened(gradient)
    squares = torch.zeros(len(parameters), dtype=torch.float64, device=device)
    if local:
        norms = torch._foreach_norm(list(local.values()))
        places = torch.tensor(list(local), device=device)
        squares[places] = torch.stack([norm.to(squares) for norm in norms]).square()
    for group, places in split.items():
        part = squares[places]
        dist.all_reduce(part, group=group)
        squares[places] = part
    return squares
