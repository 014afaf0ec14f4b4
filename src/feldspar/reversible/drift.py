"""Measure the error of rebuilt streams; rounding errors add up with depth."""

import torch
from torch import Tensor

from feldspar.reversible.chain import ReversibleChain
from feldspar.reversible.replay import call_purely


def reconstruction_errors(chain: ReversibleChain, *tensors: Tensor) -> list[float]:
    """Return the relative L2 error of each block's inputs, as a backward pass rebuilds them.

    The first block comes first. All inputs are kept for the comparison, so use a small batch.
    Buffers do not change. The functions must draw no random numbers in their current mode.
    """
    with torch.no_grad():
        streams, context = chain.split(tensors)
        entering = []
        for block in chain.in_order:
            entering.append(streams)
            streams = call_purely(block, *streams, *context)
        errors = []
        for block, true in zip(reversed(chain.in_order), reversed(entering), strict=True):
            streams = block.inverse(*streams, *context)
            errors.append(_relative_error(streams, true))
    return errors[::-1]


def _relative_error(rebuilt: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> float:
    pairs = list(zip(rebuilt, true, strict=True))
    error = sum(float((ours - theirs).double().square().sum()) for ours, theirs in pairs)
    size = sum(float(theirs.double().square().sum()) for _, theirs in pairs)
    return (error / size) ** 0.5 if size else error**0.5
