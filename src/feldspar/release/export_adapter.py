"""Export the updates of LoRA of a run as a folder that ``peft`` loads over their base."""

from pathlib import Path

from feldspar.core.artifact import Wanted, finish_artifact
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder
from feldspar.core.json_files import read_json
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.architectures import choose, of_configuration
from feldspar.huggingface.import_folder import (
    CONFIGURATION_NAME,
    SETTINGS_NAME,
    read_description,
)
from feldspar.huggingface.peft_folder import Update, write_adapter
from feldspar.model.low_rank import low_rank_layers, remove_low_rank, whole_update
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.start_from import StartFromHuggingFace
from feldspar.release.export_run import KINDS, TYPES, export_loaded, require_target
from feldspar.train.load import LoadedRun, load_updated_run

FORMAT = "peft"
BASE = "base"


def export_adapter(
    run: Path,
    to: Path,
    architecture: str = "auto",
    checkpoint: str = "last",
    dtype: str | None = None,
    overwrite: bool = False,
) -> ModelSettings:
    """Write the updates of LoRA at a checkpoint into the folder ``to``; return the base's settings.

    The base is the folder that the run started from, if its weights are the run's own still.
    Otherwise it is written into the folder ``base`` of ``to``. Raises UserError for a checkpoint of
    a phase without LoRA, whose updates are part of the weights, and as ``export_run``.
    """
    require_target(to, dtype, overwrite, FORMAT)
    dtype = dtype or "float32"
    loaded = load_updated_run(run, checkpoint)
    recipe, index = loaded.recipe, loaded.checkpoint.state["phase"]
    lora = recipe.phases[index].lora
    if lora is None:
        raise UserError(
            f"--format peft: the phase {recipe.phases[index].name} has no LoRA, so this checkpoint "
            "has no updates beside its weights",
            where=str(loaded.checkpoint.folder),
            do="choose a checkpoint of a phase with lora (--checkpoint), or --format hf",
        )
    updates = {
        f"{name}.weight": Update(
            layer.lora_a.weight.detach(),
            whole_update(layer.lora_b.weight.detach(), layer.parts, layer.out_features),
        )
        for name, layer in low_rank_layers(loaded.decoder)
    }
    remove_low_rank(loaded.decoder)
    decoder = loaded.decoder
    given = ModelDescription(decoder.settings, recipe.parametrization, decoder.position_scaling)
    start = _unchanged_base(loaded, index) if architecture == "auto" else None
    with new_folder(to, overwrite) as folder:
        if start is None:
            written = export_loaded(loaded, folder / BASE, architecture, dtype)
            adapter, expressed = choose(architecture, given)
            base = (to / BASE).resolve()
        else:
            adapter, expressed, base = start
            written = expressed.settings
        write_adapter(*(folder, updates, lora, adapter, given, expressed, str(base), TYPES[dtype]))
        finish_artifact(folder, Wanted(KINDS[FORMAT]))
    return written


def _unchanged_base(
    loaded: LoadedRun, phase_index: int
) -> tuple[Adapter, ModelDescription, Path] | None:
    """Return the folder that the run started from, if only LoRA was trained since then.

    None where there is no such folder, or where its model is another.
    """
    recipe = loaded.recipe
    start = recipe.start_from
    if not isinstance(start, StartFromHuggingFace) or recipe.adapt is not None:
        return None
    path = Path(start.path)
    own = (path / CONFIGURATION_NAME).is_file() and not (path / SETTINGS_NAME).is_file()
    phases = recipe.phases[: phase_index + 1]
    if not own or any(phase.lora is None or phase.trainable != "all" for phase in phases):
        return None
    description = read_description(path)
    same_vocabulary = description.settings.vocab_size == recipe.model.vocab_size
    if not same_vocabulary or description.scaling != loaded.decoder.position_scaling:
        return None
    return of_configuration(read_json(path / CONFIGURATION_NAME)), description, path.resolve()
