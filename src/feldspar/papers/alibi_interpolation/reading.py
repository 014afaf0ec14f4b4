"""Reading beyond the length trained at: the loss of text, and values recalled from far back."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.length_sweep import long_documents
from feldspar.evaluate.loss.by_position import losses_by_position
from feldspar.evaluate.loss.held_out_loss import held_out_documents
from feldspar.evaluate.text_model import TextModel
from feldspar.papers.kit.paper import Figures
from feldspar.papers.kit.recall import Band, recall_documents, recall_in
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, PositionScaling
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

SPLIT = "test"
TEXT_DOCUMENTS = 48
REACHES = (1, 2, 4)
"""Lengths read, as multiples of the length trained at."""
SHORT, NONE, LINEAR, TRAINED = "short windows", "as trained", "divided", "as fine-tuned"
"""``SHORT``: the same tokens in windows of the length trained at. ``LINEAR``: positions divided by
the reach: slopes of ALiBi, angles of rotary positions."""
WITHIN = "within"
"""Recall at all distances in windows of the length trained at."""

BySeed = dict[int, list[float]]
"""A figure of each seed, by reach."""


def read_beyond(
    arms: Mapping[str, Sequence[Path]],
    scalings: Mapping[str, Sequence[str]],
    train_length: int,
    text: str,
    *,
    recalls: bool,
) -> Figures:
    """Read the runs of each arm at every reach with every scaling of the arm.

    ``text`` is the source whose held-out loss is measured. Returns ``losses``, and with ``recalls``
    also ``recall`` (shares) and ``nats`` (losses of the values), each by arm, scaling and reach,
    and ``within`` by arm.
    """
    found: Figures = {
        name: {arm: {scaling: {} for scaling in scalings[arm]} for arm in arms}
        for name in (("losses", "recall", "nats") if recalls else ("losses",))
    }
    if recalls:
        found[WITHIN] = {arm: [] for arm in arms}
    with progress("reading beyond", sum(map(len, arms.values())), "models") as advance:
        for arm, folders in arms.items():
            for folder in folders:
                model, documents = _opened(folder, text, train_length * max(REACHES))
                for scaling in (SHORT, *scalings[arm]):
                    for reach in REACHES:
                        loss = loss_at_reach(model, scaling, documents, reach, train_length)
                        _put(found["losses"][arm], scaling, reach, loss)
                        if recalls and scaling != SHORT:
                            share, nats = recall_at_reach(model, scaling, reach, train_length)
                            _put(found["recall"][arm], scaling, reach, share)
                            _put(found["nats"][arm], scaling, reach, nats)
                if recalls:
                    found[WITHIN][arm].append(recall_within(model, train_length))
                advance(1)
    return found


def _opened(folder: Path, text: str, length_tokens: int) -> tuple[TextModel, list[np.ndarray]]:
    """Return a run's model and the held-out documents of a source that are long enough."""
    run = load_run(folder)
    model = text_model_of(run)
    shards = open_shards(run.recipe)
    held_out = held_out_documents(shards, SPLIT, text, model.tokenizer).tokens
    return model, long_documents(held_out, length_tokens, TEXT_DOCUMENTS)


def _put(figures: dict[str, BySeed], scaling: str, reach: int, value: float) -> None:
    figures.setdefault(scaling, {}).setdefault(reach, []).append(value)


def loss_at_reach(
    model: TextModel, name: str, documents: Sequence[np.ndarray], reach: int, train_length: int
) -> float:
    """Return the mean loss at the last ``train_length`` / 2 of ``reach`` x ``train_length`` tokens.

    They are the same tokens whatever the scaling ``name``; ``SHORT`` reads only the window of
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


def recall_at_reach(
    model: TextModel, name: str, reach: int, train_length: int
) -> tuple[float, float]:
    """Return share and loss of values recalled from ``far_band`` of windows of the reach.

    The model's own scaling is left as it was.
    """
    trained = model.decoder.position_scaling
    model.decoder.scale_positions(scaling_for(name, reach, trained))
    try:
        documents = recall_documents(model, reach * train_length)
        [found] = recall_in(model, documents, [far_band(reach, train_length)])
    finally:
        model.decoder.scale_positions(trained)
    return found.share, found.nats


def recall_within(model: TextModel, train_length: int) -> float:
    """Return the share recalled at all distances within the length trained at."""
    [found] = recall_in(model, recall_documents(model, train_length), [(0, train_length)])
    return found.share


def far_band(reach: int, train_length: int) -> Band:
    """Return the farther half of the distances that a window of the reach holds."""
    return reach * train_length // 2, reach * train_length


def scaling_for(name: str, reach: int, trained: PositionScaling) -> PositionScaling:
    """Return a scaling by the reach: the length read over the length trained at."""
    if name == TRAINED:
        return trained
    if name in (SHORT, NONE) or reach == 1:
        return NoScaling()
    return LinearScaling(type="linear", factor=reach)
