"""Translate GGUF's metadata into a ``config.json`` and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.huggingface.gguf.gguf_file import GgufFile
from feldspar.huggingface.gguf.known_architectures import (
    GGUF_ARCHITECTURES,
    HEADS,
    KEY_LENGTH,
    KV_HEADS,
    ROTARY_WIDTH,
    VALUE_LENGTH,
    WIDTH,
    GgufArchitecture,
)
from feldspar.huggingface.gguf.rotary_metadata import (
    FREQUENCIES,
    ROTARY_KEYS,
    rotary_metadata,
    rotary_parameters,
)

ARCHITECTURE = "general.architecture"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
SAID_BY_TENSORS = ("vocab_size", VALUE_LENGTH, ROTARY_WIDTH)
"""Keys below an architecture's name that repeat what other keys or tensors say."""
WITHOUT_EFFECT = {
    "rope.scaling.finetuned": None,
    "tensor_data_layout": None,
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
}
"""Keys that may be there, with the values that change no logits; None: any value."""
NOT_SAID = (
    "model_type",
    "architectures",
    "vocab_size",
    "tie_word_embeddings",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
)
"""Keys of ``config.json`` that GGUF says by its tensors, or by keys that are made elsewhere."""
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout")
"""Keys of ``config.json`` that no logits depend on."""


def architecture_of(file: GgufFile) -> GgufArchitecture:
    """Return the architecture of a file. Raises UserError for one that is not in the table."""
    name = file.require(ARCHITECTURE)
    if name not in GGUF_ARCHITECTURES:
        raise UserError(
            f"{file.path}: the architecture {name!r} is not supported", allowed=GGUF_ARCHITECTURES
        )
    return GGUF_ARCHITECTURES[name]


def configuration_of(file: GgufFile) -> dict[str, Any]:
    """Return the ``config.json`` that the Hugging Face class of the file's model would have.

    Raises UserError for missing keys, and for keys that say what we would not compute.
    """
    known = architecture_of(file)
    prefix = known.name + "."
    own = {
        key.removeprefix(prefix): _shortest(value)
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    _refuse_unknown(own, known, file)
    shapes = file.shapes
    for name in (EMBEDDING, "output_norm.weight"):
        if name not in shapes:
            raise UserError(f"{file.path} lacks the tensor {name}")
    heads, width = (_whole(own, key, known, file) for key in (HEADS, WIDTH))
    own = {KV_HEADS: heads, KEY_LENGTH: width // heads} | own
    configuration: dict[str, Any] = {"model_type": known.model_type, **known.fixed}
    for key, theirs in known.keys.items():
        if key not in own:
            raise UserError(f"{file.path} lacks the key {prefix}{key}")
        configuration[theirs] = own[key]
    for key, tensor in known.from_tensors.items():
        configuration[key] = tensor in shapes
    configuration["vocab_size"] = shapes[EMBEDDING][0]
    configuration["tie_word_embeddings"] = HEAD not in shapes
    if known.rotary:
        head_dim = own[KEY_LENGTH]
        if own.get(ROTARY_WIDTH, head_dim) != head_dim and "partial_rotary_factor" not in (
            known.keys.values()
        ):
            raise UserError(
                f"{file.path}: {prefix}{ROTARY_WIDTH} is not supported with this value",
                found=own[ROTARY_WIDTH],
                allowed=f"{head_dim}, the width of a head",
            )
        frequencies = file.read(FREQUENCIES) if FREQUENCIES in shapes else None
        parameters = rotary_parameters(own, frequencies, head_dim)
        configuration |= {"rope_theta": parameters["rope_theta"], "rope_parameters": parameters}
    return configuration


def metadata_of(configuration: Mapping[str, Any], known: GgufArchitecture) -> dict[str, Any]:
    """Return GGUF's keys, without the architecture's name before them, of a ``config.json``.

    Raises UserError for values that llama.cpp has no key for.
    """
    for key, value in configuration.items():
        said = (*known.keys.values(), *known.from_tensors, *NOT_SAID, *DROPOUTS)
        fixed = known.fixed.get(key)
        if key not in said and value is not None and value != fixed:
            raise UserError(
                f"llama.cpp's {known.name} has no place for {key} of config.json",
                found=value,
                allowed=fixed,
                do="export with --format hf",
            )
    found = {
        key: configuration[theirs]
        for key, theirs in known.keys.items()
        if configuration.get(theirs) is not None
    }
    if known.rotary:
        head_dim = found.get(KEY_LENGTH, found[WIDTH] // found[HEADS])
        found |= {VALUE_LENGTH: head_dim, ROTARY_WIDTH: head_dim}
        found |= rotary_metadata(configuration["rope_parameters"])
    return found


def _refuse_unknown(own: Mapping[str, Any], known: GgufArchitecture, file: GgufFile) -> None:
    """Raise UserError for a key that could change logits and that no table knows."""
    expected = {*known.keys, *SAID_BY_TENSORS, *(ROTARY_KEYS if known.rotary else ()), KEY_LENGTH}
    for key, value in own.items():
        if key in expected:
            continue
        harmless = WITHOUT_EFFECT.get(key, ())
        if harmless is not None and value not in harmless:
            raise UserError(
                f"{file.path}: the key {known.name}.{key} is not supported with this value",
                found=value,
            )


def _whole(own: Mapping[str, Any], key: str, known: GgufArchitecture, file: GgufFile) -> int:
    value = own.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"{file.path}: the key {known.name}.{key} is not a whole number above 0", found=value
        )
    return value


def _shortest(value: Any) -> Any:
    """Return a float32 as the shortest decimal that stands for it, such as 1e-05."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
