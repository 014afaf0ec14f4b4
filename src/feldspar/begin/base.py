"""Choose how long to train on from an open model, by the minutes and the amount of text."""

from pathlib import Path
from typing import Any

from feldspar.begin.choice import (
    MOST_EPOCHS,
    TOKENIZER_SAMPLE_BYTES,
    TRAINING_SHARE,
    Choice,
    bytes_per_token,
    fit,
    recipe_without_text,
    require_text,
    sample_texts,
    usual_sequences,
)
from feldspar.begin.pile import Pile
from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.import_folder import read_description
from feldspar.model.rows import model_shapes
from feldspar.prepare.bases import holds_model
from feldspar.recipe.sections.model import ModelSettings
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from feldspar.train.step_timing import measure_pace

LEARNING_RATE = 1e-4
"""Peak rate of all weights, as in the second stage of bilingual/open; higher rates forget more."""
CONTEXT = 256
"""Tokens of a sequence, or fewer where the model reads fewer."""


def choose_for_base(pile: Pile, train_share: float, folder: Path, minutes: float) -> Choice:
    """Return the training of the model in ``folder`` on ``pile``.

    Raises UserError for a folder without a model or without a tokenizer, and for too little text.
    """
    if not holds_model(folder):
        raise UserError(
            f"--start-from: {folder} holds no model",
            do="import one first, for example: feldspar import smollm2-135m --out smollm2",
        )
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError(f"--start-from: {folder} holds no {TOKENIZER_FILE}")
    described = read_description(folder)
    sections = _sections(described)
    context = min(CONTEXT, described.settings.max_sequence_length)
    recipe = recipe_without_text(sections, context)
    tokenizer = TextTokenizer.load(folder)
    texts = sample_texts(pile, TOKENIZER_SAMPLE_BYTES)
    token_bytes = bytes_per_token(tokenizer, texts)
    text_tokens = pile.new_bytes * train_share / token_bytes
    require_text(pile, text_tokens, context, token_bytes)
    with progress("measuring the speed of this machine", None, "models") as advance:
        pace = measure_pace(recipe, 0, 1)
        advance(1)
    timed = minutes * 60 * pace.undisturbed * TRAINING_SHARE
    fitted = fit(timed, MOST_EPOCHS * text_tokens, usual_sequences(recipe), context)
    return Choice(
        sections=sections,
        context=context,
        tokens_per_parameter=None,
        vocabulary=tokenizer.needed_rows,
        parameters=model_shapes(recipe.model).parameters,
        text_tokens=int(text_tokens),
        tokens=fitted.tokens,
        sequences=fitted.sequences,
        pace=pace,
        seconds=fitted.tokens / pace.undisturbed / TRAINING_SHARE,
        bytes_per_token=token_bytes,
        bound_by=fitted.bound_by,
        start_from=folder,
    )


def _sections(described: ModelDescription) -> dict[str, dict[str, Any]]:
    """Return the sections of the recipe that describe the model and its training."""
    parametrization = described.parametrization.model_dump(mode="json", exclude_defaults=True)
    return {
        "model": _changed(described.settings),
        "parametrization": parametrization | {"learning_rate": LEARNING_RATE},
        "optimizer": {"type": "adamw", "weight_decay": 0.01},
        "schedule": {
            "learning_rate": [
                {"to": 1, "over": "10% of run"},
                {"to": 0.1, "over": "rest", "shape": "cosine"},
            ]
        },
    }


def _changed(settings: ModelSettings) -> dict[str, Any]:
    """Return the keys of the section that differ from their defaults, each as a whole."""
    values = settings.model_dump(mode="json", by_alias=True)
    fields = type(settings).model_fields
    kept = {
        field.alias or name
        for name, field in fields.items()
        if getattr(settings, name) != field.get_default(call_default_factory=True)
    }
    return {key: value for key, value in values.items() if key in kept}
