"""Validate during training: loss of each source on fixed held-out sequences."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from math import log
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError, nearest
from feldspar.core.progress import progress
from feldspar.runtime.collectives import all_reduce_sum, rank, world_size
from feldspar.runtime.distributed import split_again
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.shards.shard_folder import ShardSet

SPLIT = "validation"


@dataclass(frozen=True)
class HeldOutSource:
    """Fixed sequences of one source: tokens (n, L+1), and its UTF-8 bytes per token.

    Embedding rows from ``n_real_vocab`` on are padding, to which training gave no probability.
    """

    name: str
    tokens: Tensor
    bytes_per_token: float


def held_out_sources(
    shards: ShardSet,
    holdout: Literal["all"] | tuple[str, ...],
    sequences: int,
    context_length: int,
    seed: int,
) -> list[HeldOutSource]:
    """Choose ``sequences`` of each source, spread over it; a source that is too short is left out.

    Raises UserError for a source of ``holdout`` (``evaluation.holdout``) that the shards lack.
    """
    available = shards.sources(SPLIT) if SPLIT in shards.splits else []
    wanted = available if holdout == "all" else list(holdout)
    begin_tokens = 0 if shards.begin_of_sequence_id is None else 1
    held_out = []
    for name in wanted:
        if name not in available:
            hint = nearest(name, available)
            raise UserError(
                f"evaluation.holdout: the shards have no held-out source {name!r}"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=available,
            )
        total = shards.tokens(SPLIT, name)
        windows = (total - 1) // (context_length - begin_tokens)
        count = min(sequences, windows)
        if count == 0:
            continue
        phase = PhaseData(SPLIT, {name: Fraction(1)}, context_length, windows)
        reader = SequenceReader(shards, [phase], seed, SPLIT, shuffled=False)
        # Spread over all documents, because the first windows may all be from one long document.
        places = [index * windows // count for index in range(count)]
        parts = [reader.read(0, place, place + 1).tokens for place in places]
        tokens = torch.from_numpy(np.concatenate(parts))
        ratio = shards.text_bytes(SPLIT, name) / total
        held_out.append(HeldOutSource(name, tokens, ratio))
    return held_out


@torch.no_grad()
def validate(
    module: nn.Module,
    sources: Sequence[HeldOutSource],
    micro_batch_sequences: int,
    device: torch.device,
    autocast: AbstractContextManager[object],
) -> dict[str, float]:
    """Return loss (nats per token) and bits per byte of each source, and their plain means.

    ``module`` maps inputs and labels (b, t) to their summed loss. It is the trained module with its
    wrappers, which gather what is split over processes. The processes share the work, and each
    computes the same number of micro-batches.
    """
    was_training = module.training
    module.eval()
    metrics: dict[str, float] = {}
    count = sum(len(source.tokens) for source in sources)
    with progress("validation", count, "sequences") as advance:
        totals = [
            _summed_loss(module, source, micro_batch_sequences, device, autocast, advance)
            for source in sources
        ]
    for source, total in zip(sources, totals, strict=True):
        loss = total / (source.tokens.shape[0] * (source.tokens.shape[1] - 1))
        metrics[f"validation/{source.name}/loss"] = loss
        metrics[f"validation/{source.name}/bits_per_byte"] = loss / source.bytes_per_token / log(2)
    for measure in ("loss", "bits_per_byte"):
        values = [metrics[f"validation/{source.name}/{measure}"] for source in sources]
        if values:
            metrics[f"validation/{measure}"] = sum(values) / len(values)
    module.train(was_training)
    split_again(module)
    return metrics


def _summed_loss(
    module: nn.Module,
    source: HeldOutSource,
    micro_batch_sequences: int,
    device: torch.device,
    autocast: AbstractContextManager[object],
    advance: Callable[[float], None],
) -> float:
    pieces = source.tokens.split(micro_batch_sequences)
    total = 0.0
    for first in range(0, len(pieces), world_size()):
        mine = first + rank()
        piece = pieces[mine if mine < len(pieces) else 0].to(device)
        with autocast:
            loss = module(piece[:, :-1], piece[:, 1:])
        if mine < len(pieces):
            total += float(loss)
        advance(sum(map(len, pieces[first : first + world_size()])))
    return all_reduce_sum([total])[0]
