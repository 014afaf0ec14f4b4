"""Loss beyond the length that models were trained at, on the same documents for all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.by_position import losses_by_position
from feldspar.evaluate.held_out import held_out_documents, require_split
from feldspar.evaluate.length_sweep import long_documents
from feldspar.evaluate.text_model import TextModel
from feldspar.model.settings import LinearScaling, NoScaling, NtkScaling, PositionScaling
from feldspar.train.data import open_shards
from feldspar.train.load import load_run
from feldspar.train.text_model import text_model_of

SPLIT = "test"
DOCUMENTS = 96
REACHES = (1, 2, 4, 8)
"""Lengths read, as multiples of the length trained at."""
SHORT, NONE, LINEAR, NTK, TRAINED = "short", "none", "linear", "ntk", "as trained"
"""``short``: the same tokens in windows of the length trained at; else how positions are scaled."""

Losses = dict[str, dict[int, list[float]]]
"""Nats per token of each seed, by scaling and by reach."""


def losses_beyond(
    runs: Sequence[Path], train_length: int, scalings: Sequence[str], documents: int = DOCUMENTS
) -> Losses:
    """Mean loss at the last ``train_length`` / 2 positions of windows of each reach.

    All scalings, ``short`` too, are asked for the same tokens. Raises UserError where no held-out
    document is long enough.
    """
    found: Losses = {name: {reach: [] for reach in REACHES} for name in (SHORT, *scalings)}
    with progress("reading beyond", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            model = text_model_of(run)
            shards = open_shards(run.recipe)
            held_out = [
                document
                for name in require_split(shards, SPLIT)
                for document in held_out_documents(shards, SPLIT, name, model.tokenizer).tokens
            ]
            chosen = long_documents(held_out, train_length * max(REACHES), documents)
            trained = model.decoder.position_scaling
            for name, by_reach in found.items():
                for reach, losses in by_reach.items():
                    model.decoder.scale_positions(scaling_for(name, reach, trained))
                    losses.append(_loss(model, name, chosen, reach * train_length, train_length))
            advance(1)
    return found


def scaling_for(name: str, reach: int, trained: PositionScaling) -> PositionScaling:
    """The factor is the reach: what is read over what was trained at."""
    if name == TRAINED:
        return trained
    if name in (SHORT, NONE) or reach == 1:
        return NoScaling()
    if name == LINEAR:
        return LinearScaling(type="linear", factor=reach)
    return NtkScaling(type="ntk", factor=reach)


def _loss(
    model: TextModel, name: str, documents: Sequence[np.ndarray], length: int, train_length: int
) -> float:
    window = train_length if name == SHORT else length
    pieces = [document[length - window : length] for document in documents]
    return float(losses_by_position(model, pieces, window)[:, -(train_length // 2) :].mean())


def rows_of(found: Mapping[str, Losses]) -> list[list[str]]:
    """A row for each arm and scaling: means over seeds."""
    return [
        [arm, name, *(f"{sum(own) / len(own):.4f}" for own in by_reach.values())]
        for arm, losses in found.items()
        for name, by_reach in losses.items()
    ]
