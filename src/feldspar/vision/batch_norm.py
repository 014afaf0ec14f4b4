"""Batch norm whose statistics are those of a whole step, on however many processes it runs.

A run then computes the same on any number of processes, and a recipe's batch means the same.
``torch.nn.SyncBatchNorm`` is for GPUs only; this one runs, and is tested, on processors too.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from feldspar.runtime.collectives import world_size


class BatchNorm(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``, whose training statistics may be those of all processes.

    Each process must then call it equally often, with as many values. Calls that a reversible
    backward pass repeats exchange their statistics again: processes run the same backward pass, so
    these exchanges come in the same order too.
    """

    synchronised = False
    """True: statistics are exchanged in training."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (b, c, h, w); in training update the running statistics."""
        if not (self.synchronised and self.training):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance = _moments_of_all(x)
        self._follow(mean.detach(), variance.detach(), world_size() * x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = (x - _by_channel(mean)) * _by_channel(scale) + _by_channel(self.bias)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; the variance is that of a sample of ``count`` values."""
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def synchronise_batch_norms(network: nn.Module) -> None:
    """Let the batch norms of ``network`` use the statistics of all processes in training."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = True


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _moments_of_all(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of (b, c, h, w) over all processes.

    Both are exchanged in one message. It holds second moments in float64, because their difference
    from the square of the mean is small.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    mean = mean.double()
    own = torch.stack([mean, variance.double() + mean.square()])
    first, second = (_Sum.apply(own) / world_size()).unbind()
    return first.to(x.dtype), (second - first.square()).clamp(min=0).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is the gradient of each process's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
