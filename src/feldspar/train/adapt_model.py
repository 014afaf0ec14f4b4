"""Give a model on disk the vocabulary of an extended tokenizer, before any training."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from feldspar.adapt.embeddings import Adaptation
from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder, write_atomically
from feldspar.core.json_files import write_json
from feldspar.huggingface.import_folder import ImportedModel, import_model, write_imported_into
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import table
from feldspar.recipe.recorded import is_run
from feldspar.recipe.sections.adapt import AdaptSettings
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.adaptation import Source, adapt_to_tokenizer

ADAPTATION_FILE = "adaptation.json"
ROWS_FILE = "new_rows.jsonl"


def adapt_model(
    base: Path,
    tokenizer_folder: Path,
    out: Path,
    settings: AdaptSettings = AdaptSettings(),
    seed: int = 0,
    overwrite: bool = False,
) -> Adaptation:
    """Write the model in ``base``, with rows for the new tokens, into the folder ``out``.

    ``tokenizer_folder`` holds a tokenizer that extends the model's. Beside the model,
    ``adaptation.json`` says how the rows began, and ``new_rows.jsonl`` where each of them came
    from. Raises UserError for a run, for a tokenizer that does not extend the model's, and where
    ``out`` exists already unless ``overwrite``.
    """
    require_writable(out, "model", overwrite)
    if is_run(base):
        raise UserError(
            f"{base} is a run folder, and adapt needs a model folder",
            do="export it first: feldspar export RUN --out FOLDER",
        )
    model, new = import_model(base), TextTokenizer.load(tokenizer_folder)
    multiple = settings.pad_rows_to
    rows = -(-new.vocab_size // multiple) * multiple
    description = model.description
    source = Source(str(base), model.state, model.tokenizer_folder, forward=description.forward)
    weights, done = adapt_to_tokenizer(
        model.state,
        source,
        new,
        tokenizer_folder,
        rows,
        settings.embeddings,
        table(description.parametrization, model_shapes(description.settings)),
        seed,
    )
    shape = description.settings.model_copy(update={"vocab_size": rows})
    adapted = ImportedModel(
        replace(description, settings=shape), weights, tokenizer_folder, model.origin
    )
    with new_folder(out, overwrite) as folder:
        write_json(folder / ADAPTATION_FILE, done.record())
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in _entries(done, new))
        write_atomically(folder / ROWS_FILE, "".join(lines))
        write_imported_into(adapted, folder)
    return done


def _entries(done: Adaptation, new: TextTokenizer) -> Iterator[dict[str, Any]]:
    """Yield for each new row its id, its text, and the old tokens that it was made of."""
    for identifier, source in enumerate(done.row_sources, start=done.old_rows):
        old = {"old_tokens": [new.decode([token]) for token in source.old_ids]}
        named = old if source.old_ids else {}
        yield {"id": identifier, "text": new.decode([identifier])} | asdict(source) | named
