"""Held-out loss at each position of a window, which may be longer than any context trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.loss.validation import held_out_sources
from feldspar.train.data import open_shards
from feldspar.train.load import load_run

MICRO_BATCH_TOKENS = 8192


def loss_by_position(run: Path, length_tokens: int, sequences: int) -> np.ndarray:
    """Mean loss of a finished run at each of ``length_tokens`` positions, nats per token.

    The windows are ``sequences`` of each held-out source, the same for every run of the same
    shards; sources count alike. Raises UserError where there is no run or no held-out text.
    """
    trained = load_run(run)
    shards = open_shards(trained.recipe)
    sources = held_out_sources(shards, "all", sequences, length_tokens, seed=0)
    means = np.zeros((len(sources), length_tokens))
    for row, source in enumerate(sources):
        for piece in source.tokens.split(max(1, MICRO_BATCH_TOKENS // length_tokens)):
            losses = trained.decoder.token_losses(
                piece[:, :-1], piece[:, 1:], n_real_vocab=shards.vocab_size
            )
            means[row] += losses.double().sum(0).numpy()
        means[row] /= len(source.tokens)
    return means.mean(axis=0)


def losses_by_position(
    runs: Sequence[Path], length_tokens: int, sequences: int
) -> list[np.ndarray]:
    """``loss_by_position`` of several runs."""
    losses = []
    with progress("loss by position", len(runs), "models") as advance:
        for run in runs:
            losses.append(loss_by_position(run, length_tokens, sequences))
            advance(1)
    return losses
