"""Batch norm over two processes against torch's over one batch, in float64; asserts in each."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from feldspar.reversible.recompute import recomputed
from feldspar.vision.batch_norm import BatchNorm, synchronise_batch_norms

STEPS = 3


def network(norm: type[nn.BatchNorm2d]) -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(2, 3, 3), norm(3), nn.Hardswish(), nn.Conv2d(3, 3, 1), norm(3)]
    return nn.Sequential(*layers).double()


def passes(model: nn.Module, images: Tensor, again: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients after some steps, the last of which counts."""
    for _ in range(STEPS):
        model.zero_grad()
        images = images.detach().requires_grad_()
        output = recomputed(model, images)[0] if again else model(images)
        (output * output.detach().cos()).sum().backward()
    assert images.grad is not None
    return output.detach(), [
        images.grad,
        *(p.grad for p in model.parameters() if p.grad is not None),
    ]


def check(rank: int) -> None:
    images = torch.randn(
        6, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    own = slice(3 * rank, 3 * rank + 3)
    whole = network(nn.BatchNorm2d)
    expected, (of_images, *of_weights) = passes(whole, 100 + images)
    for again in (False, True):
        part = network(BatchNorm)
        synchronise_batch_norms(part)
        output, (own_images, *own_weights) = passes(part, (100 + images)[own], again)
        torch.testing.assert_close(output, expected[own])
        torch.testing.assert_close(own_images, of_images[own])
        for gradient in own_weights:
            dist.all_reduce(gradient)
        torch.testing.assert_close(own_weights, of_weights)
        torch.testing.assert_close(dict(part.named_buffers()), dict(whole.named_buffers()))
        part.eval(), whole.eval()
        torch.testing.assert_close(part(images[own]), whole(images)[own])
        whole.train()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    check(dist.get_rank())
    dist.destroy_process_group()
