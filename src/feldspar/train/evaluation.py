"""Measure a run: its held-out documents, gaps to fill, labels of pairs, longer contexts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.all_baselines import held_out_baselines
from feldspar.evaluate.length_sweep import sweep_lengths
from feldspar.evaluate.loss.documents import read_text
from feldspar.evaluate.loss.held_out_loss import (
    HeldOutLoss,
    evaluate_shards,
    held_out_documents,
    require_split,
)
from feldspar.evaluate.loss.message_loss import message_loss
from feldspar.evaluate.tasks.filled_gaps import evaluate_infilling, infilling_record
from feldspar.evaluate.tasks.labels import evaluate_labels
from feldspar.evaluate.tasks.lm_eval_adapter import run_lm_eval
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.evaluation import LengthSweepSettings
from feldspar.recipe.sections.phase_data import MessagesData
from feldspar.recipe.sections.position_scaling import NoScaling
from feldspar.tokens.sequences.messages import chat_encoder, message_examples, read_messages
from feldspar.tokens.sequences.pairs import encode_pairs, read_pairs
from feldspar.train.data import seen_tokens
from feldspar.train.examples import pair_layout
from feldspar.train.load import LoadedRun, held_out_shards
from feldspar.train.opened_model import Model
from feldspar.train.pairs import label_baselines, labelled_phase


@dataclass(frozen=True)
class HeldOutFigures:
    """The loss of a run on its held-out documents, and the baselines to compare it with."""

    loss: HeldOutLoss
    baselines: Mapping[str, Mapping[str, float]]
    """Bits per byte by baseline and source, and ``overall``. Empty unless requested."""
    measured: dict[str, Any]
    """The measured checkpoint, as ``measured_checkpoint`` returns it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        baselines = {name: dict(values) for name, values in self.baselines.items()}
        found = self.loss.as_dict() | ({"baselines": baselines} if baselines else {})
        return found | self.measured


def require_run_of(model: Model) -> LoadedRun:
    """Return the run of a model. Raises UserError for an exported model, which has no data."""
    if model.run is None:
        raise UserError(
            f"{model.path} is not a run folder, so it has no held-out documents",
            do="name what to evaluate on: --text FILE, or --tasks NAME",
        )
    return model.run


def measured_checkpoint(model: Model) -> dict[str, Any]:
    """Return ``checkpoint``: what tells the weights of a run from others; else nothing.

    A model that was changed since it was opened, such as an extended one, is no checkpoint.
    """
    if model.run is None or model.decoder is not model.run.decoder:
        return {}
    return {"checkpoint": model.run.checkpoint.identity()}


def held_out_figures(
    model: Model,
    split: str = "test",
    limit: int | None = None,
    baselines: bool = False,
    shards: Path | None = None,
) -> HeldOutFigures:
    """Measure a run on the held-out documents of its shards, source by source.

    ``split`` is validation or test; ``limit`` is the most tokens of each source; ``shards`` is the
    folder of the shards where it is not the recipe's. Raises UserError for a model without a run,
    and where the shards are not those that it was trained on.
    """
    run = require_run_of(model)
    own = held_out_shards(run, shards)
    loss = evaluate_shards(model.text_model, own, split, limit)
    found = HeldOutFigures(loss, {}, measured_checkpoint(model))
    if not baselines:
        return found
    seen = seen_tokens(run.recipe, own)
    return replace(found, baselines=held_out_baselines(own, model.tokenizer, seen, split, limit))


def task_figures(
    model: Model,
    tasks: Sequence[str],
    include_path: Path | None = None,
    limit: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the figures of lm-eval's tasks for ``--json``; those of a run name its checkpoint.

    Raises as ``run_lm_eval``.
    """
    found = run_lm_eval(model.text_model, tasks, include_path, limit=limit)
    measured = measured_checkpoint(model)
    return {result.task: result.as_dict() | measured for result in found}


def infilling_figures(
    model: Model, split: str = "test", limit: int | None = None, shards: Path | None = None
) -> dict[str, Any]:
    """Measure how a run fills gaps in its held-out documents, by source and overall."""
    run = require_run_of(model)
    found = evaluate_infilling(
        model.text_model, held_out_shards(run, shards), run.recipe.seed, split, limit
    )
    return infilling_record(found)


def pair_figures(
    model: Model, file: Path, limit: int | None = None, baselines: bool = False
) -> dict[str, Any]:
    """Measure the labels that a run gives to pairs, by the template of its last phase of pairs."""
    run = require_run_of(model)
    index, template = labelled_phase(run.recipe)
    texts = read_pairs(file, template)[:limit]
    layout = pair_layout(run.recipe, index, model.tokenizer)
    pairs = encode_pairs(texts, model.tokenizer)
    record = evaluate_labels(model.text_model, pairs, layout, template).as_dict()
    beside = label_baselines(run.recipe, index, texts) if baselines else {}
    return record | ({"baselines": beside} if baselines else {})


def message_figures(model: Model, file: Path, limit: int | None = None) -> dict[str, Any]:
    """Measure the loss of the assistant's turns in a file of conversations.

    A run reads them as its last phase of messages did. Raises UserError for a file that holds no
    conversations, and for a model without a chat template.
    """
    phases = () if model.run is None else model.run.recipe.phases
    last = next((phase.messages for phase in reversed(phases) if phase.messages), None)
    # The template of the phase belongs to the model's tokenizer.
    data = (last or MessagesData(path=file)).model_copy(update={"template": None})
    examples = message_examples(
        read_messages(file)[:limit],
        chat_encoder(model.tokenizer, data),
        model.text_model.context_length + 1,
        cut=data.truncate == "turns",
    )
    return message_loss(model.text_model, examples).as_dict()


def length_figures(
    model: Model,
    settings: LengthSweepSettings,
    files: Sequence[Path] = (),
    split: str = "test",
    shards: Path | None = None,
) -> dict[str, Any]:
    """Measure a model at each length of a sweep, on text files or on a run's held-out documents."""
    run = model.run
    documents = model.tokenizer.encode_documents([read_text(path) for path in files])
    if run is not None and not files:
        own = held_out_shards(run, shards)
        for name in require_split(own, split):
            documents += held_out_documents(own, split, name, model.tokenizer).tokens
    trained = settings.train_length or trained_length(model)
    records = sweep_lengths(model.text_model, settings, documents, trained)
    return {"train_length": trained, "results": records}


def trained_length(model: Model) -> int:
    """Return the longest context that a model was trained on, in tokens, as far as it is known.

    An extended model's maximum is longer: its scaling names the trained length, or a factor.
    """
    if model.run is not None:
        recipe = model.run.recipe
        return max(recipe.context_length(phase) for phase in recipe.phases)
    scaling, longest = model.decoder.position_scaling, model.text_model.context_length
    if isinstance(scaling, NoScaling):
        return longest
    if scaling.train_length is not None:
        return scaling.train_length
    assert scaling.factor is not None, "one of the two, say the settings"
    return round(longest / scaling.factor)


def sweep_of(recipe: str) -> LengthSweepSettings:
    """Return the sweep of a recipe. Raises UserError for a recipe that sets none."""
    settings = load_recipe(recipe).recipe.evaluation.length_sweep
    if settings is None:
        raise UserError(
            f"{recipe} sets no evaluation.length_sweep",
            do="name a recipe that does, such as alibi-interpolation/small",
        )
    return settings
