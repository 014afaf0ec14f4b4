"""Write a trained decoder as a folder that transformers loads."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feldspar import __version__
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder
from feldspar.core.json_files import write_json
from feldspar.huggingface.architectures import choose
from feldspar.huggingface.folding import fold, is_plain
from feldspar.huggingface.own import OwnAdapter, write_code
from feldspar.huggingface.weights import (
    finish_model_folder,
    require_names,
    save_tensors,
    write_weights,
)
from feldspar.model.layers import SOFT_PROMPT
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import (
    ModelSettings,
    NoScaling,
    PositionScaling,
    SoftPromptSettings,
)
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import describe_masks
from feldspar.tokens.tokenizer.declaration import GENERATION_FILE, ID_KEYS
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SOFT_PROMPT_FILE = "soft_prompt.safetensors"
VOCABULARY_PARTS = ("token_embedding.weight", "output.weight")


def export_model(
    state: Mapping[str, Tensor],
    settings: ModelSettings,
    forward: ForwardMultipliers,
    tokenizer_folder: Path | None,
    out: Path,
    architecture: str = "auto",
    dtype: torch.dtype = torch.float32,
    n_real_vocab: int | None = None,
    overwrite: bool = False,
    masks: Masks | None = None,
    scaling: PositionScaling | None = None,
    soft_prompt: SoftPromptSettings | None = None,
) -> ModelSettings:
    """Write weights, configuration and tokenizer; return the settings of the exported model.

    Multipliers are folded into the weights; ``scaling`` of positions (none by default) goes into
    the configuration. Zeros stay zeros; the configuration only notes the ``masks`` that they come
    from (key ``sparsity``). Common classes have no place for a soft prompt: its vectors go into a
    file of their own, as input embeddings to stand among those of the tokens; the key
    ``soft_prompt`` names that file, their number and their place. Rows of the vocabulary from
    ``n_real_vocab`` on are padding and are cut off; by default these are the rows that the
    tokenizer lacks. Raises UserError when the architecture cannot express the model, or when the
    tokenizer has more tokens than the model.
    """
    tokenizer = None if tokenizer_folder is None else TextTokenizer.load(tokenizer_folder)
    if n_real_vocab is None and tokenizer is not None:
        n_real_vocab = tokenizer.vocab_size
    length = 0 if SOFT_PROMPT not in state else len(state[SOFT_PROMPT])
    require_names(state, {row.name: row.shape for row in model_shapes(settings, length).rows})
    source: dict[str, Any] | None = None
    plain = {name: tensor.detach().cpu() for name, tensor in state.items()}
    if not is_plain(settings, forward):
        source = {"multipliers": asdict(forward), "tied_embeddings": settings.tied_embeddings}
        folded = fold(plain, settings, forward)
        plain, settings = folded.state, folded.settings
    vectors = plain.pop(SOFT_PROMPT, None)
    plain, settings = _without_padding(plain, settings, n_real_vocab)
    scaling = scaling or NoScaling()
    adapter = choose(architecture, settings, scaling)
    configuration = adapter.to_configuration(settings, scaling) | {
        "parametrization": "sp",
        "folded_from": source,
        "feldspar_version": __version__,
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
    }
    if masks is not None and masks.tensors:
        configuration["sparsity"] = describe_masks(masks)
    if soft_prompt is not None and vectors is not None:
        configuration["soft_prompt"] = {
            "file": SOFT_PROMPT_FILE,
            "length": length,
            "place": soft_prompt.place,
        }
    generation = dict.fromkeys(ID_KEYS) if tokenizer is None else tokenizer.generation
    tensors = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in adapter.to_hf(plain, settings).items()
    }
    with new_folder(out, overwrite) as folder:
        write_weights(folder, tensors)
        if "soft_prompt" in configuration and vectors is not None:
            table = {"soft_prompt": vectors.to(dtype).contiguous()}
            save_tensors(table, folder / SOFT_PROMPT_FILE)
        special = {name: generation[name] for name in ID_KEYS}
        write_json(folder / "config.json", configuration | special, ascii_only=True)
        if tokenizer is not None:
            tokenizer.save(folder)
        write_json(folder / GENERATION_FILE, generation, ascii_only=True)
        if isinstance(adapter, OwnAdapter):
            write_code(folder)
        finish_model_folder(folder)
    return settings


def _without_padding(
    state: dict[str, Tensor], settings: ModelSettings, n_real_vocab: int | None
) -> tuple[dict[str, Tensor], ModelSettings]:
    rows = len(state[VOCABULARY_PARTS[0]])
    if n_real_vocab is None or n_real_vocab == rows:
        return state, settings
    if n_real_vocab > rows:
        raise UserError(
            f"the tokenizer has {n_real_vocab} tokens, the model only {rows}",
            do="export with the tokenizer that the model was trained with",
        )
    cut = {
        name: tensor[:n_real_vocab] if name in VOCABULARY_PARTS else tensor
        for name, tensor in state.items()
    }
    return cut, settings.model_copy(update={"vocab_size": n_real_vocab})
