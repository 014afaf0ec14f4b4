"""Loss beyond the length that models were trained at, on the same documents for all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.length_sweep import long_documents
from feldspar.evaluate.loss.by_position import losses_by_position
from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split
from feldspar.evaluate.text_model import TextModel
from feldspar.recipe.sections.model import LinearScaling, NoScaling, NtkScaling, PositionScaling
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


def losses_beyond(runs: Sequence[Path], train_length: int, scalings: Sequence[str]) -> Losses:
    """Each run's ``losses_at_reach`` on held-out documents of its shards, runs one after the other.

    Raises UserError where no document is long enough.
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
            chosen = long_documents(held_out, train_length * max(REACHES), DOCUMENTS)
            for name, by_reach in found.items():
                for reach, losses in by_reach.items():
                    losses.append(loss_at_reach(model, name, chosen, reach, train_length))
            advance(1)
    return found


def loss_at_reach(
    model: TextModel, name: str, documents: Sequence[np.ndarray], reach: int, train_length: int
) -> float:
    """Mean loss at the last ``train_length`` / 2 of ``reach`` x ``train_length`` tokens.

    They are the same tokens whatever the scaling ``name``; ``short`` reads only the window of
    ``train_length`` that ends with them. The model's own scaling is left as it was.
    """
    length = reach * train_length
    window = train_length if name == SHORT else length
    pieces = [document[length - window : length] for document in documents]
    trained = model.decoder.position_scaling
    model.decoder.scale_positions(scaling_for(name, reach, trained))
    try:
        return float(losses_by_position(model, pieces, window)[:, -(train_length // 2) :].mean())
    finally:
        model.decoder.scale_positions(trained)


def scaling_for(name: str, reach: int, trained: PositionScaling) -> PositionScaling:
    """The factor is the reach: what is read over what was trained at."""
    if name == TRAINED:
        return trained
    if name in (SHORT, NONE) or reach == 1:
        return NoScaling()
    if name == LINEAR:
        return LinearScaling(type="linear", factor=reach)
    return NtkScaling(type="ntk", factor=reach)


def rows_of(found: Mapping[str, Losses]) -> list[list[str]]:
    """A row for each arm and scaling: means over seeds."""
    return [
        [arm, name, *(f"{sum(own) / len(own):.4f}" for own in by_reach.values())]
        for arm, losses in found.items()
        for name, by_reach in losses.items()
    ]
