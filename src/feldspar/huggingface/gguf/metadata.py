"""Translate GGUF's metadata into a ``config.json`` and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.huggingface.gguf.gguf_architecture import (
    HEADS,
    KEY_LENGTH,
    KV_HEADS,
    VALUE_LENGTH,
    WIDTH,
    GgufArchitecture,
)
from feldspar.huggingface.gguf.gguf_file import GgufFile
from feldspar.huggingface.gguf.known_architectures import GGUF_ARCHITECTURES
from feldspar.huggingface.gguf.rotary_metadata import (
    FREQUENCIES,
    ROTARY_KEYS,
    SAID_OF_ROTATION,
    rotary_configuration,
    rotary_metadata,
)

ARCHITECTURE = "general.architecture"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
WITHOUT_EFFECT = {
    "vocab_size": None,
    VALUE_LENGTH: None,
    "rope.scaling.finetuned": None,
    "tensor_data_layout": None,
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
}
"""Keys that may be there, with the values that change no logits; None: any value."""
SAID_BY_TENSORS = ("model_type", "architectures", "vocab_size", "tie_word_embeddings")
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
    shapes = file.shapes
    for name in (EMBEDDING, "output_norm.weight"):
        if name not in shapes:
            raise UserError(f"{file.path} lacks the tensor {name}")
    heads, width = (_whole(own, key, known, file) for key in (HEADS, WIDTH))
    filled = {KV_HEADS: heads, KEY_LENGTH: width // heads} | own
    configuration: dict[str, Any] = {
        "vocab_size": shapes[EMBEDDING][0],
        "tie_word_embeddings": HEAD not in shapes,
    }
    for key, theirs in known.keys.items():
        if key in filled:
            configuration[theirs] = filled[key]
        elif key not in known.optional:
            raise UserError(f"{file.path} lacks the key {prefix}{key}")
    for key, (tensor, there, absent) in known.from_tensors.items():
        configuration[key] = there if tensor in shapes else absent
    configuration |= known.implied(configuration) | {"model_type": known.model_type}
    _refuse_others(own, known.derived(configuration), known, file)
    frequencies = file.read(FREQUENCIES) if FREQUENCIES in shapes else None
    head_dim = known.head_dim(configuration)
    return configuration | rotary_configuration(own, frequencies, head_dim, known.rotary)


def metadata_of(configuration: Mapping[str, Any], known: GgufArchitecture) -> dict[str, Any]:
    """Return GGUF's keys, without the architecture's name before them, of a ``config.json``.

    Raises UserError for values that llama.cpp has no key for.
    """
    implied = known.implied(configuration)
    said = (*known.keys.values(), *known.from_tensors, *SAID_BY_TENSORS, *DROPOUTS)
    for key, value in configuration.items():
        if key in implied:
            fits = value == implied[key]
        else:
            fits = value is None or key in said or (known.rotary and key in SAID_OF_ROTATION)
        if not fits:
            raise UserError(
                f"llama.cpp's {known.name} has no place for this value of {key} in config.json",
                found=value,
                allowed=str(implied[key]) if key in implied else None,
                do="export with --format hf",
            )
    found = {}
    for key, theirs in known.keys.items():
        value = configuration.get(theirs)
        if value is not None:
            found[key] = value
        elif key not in known.optional:
            raise UserError(
                f"llama.cpp's {known.name} needs {theirs} in config.json",
                do="export with --format hf",
            )
    head_dim = known.head_dim(configuration)
    if KEY_LENGTH in known.keys:
        found |= {KEY_LENGTH: head_dim, VALUE_LENGTH: head_dim}
    rotary = rotary_metadata(configuration, head_dim, known.rotary)
    return {**found, **known.derived(configuration), **rotary}


def _refuse_others(
    own: Mapping[str, Any], derived: Mapping[str, Any], known: GgufArchitecture, file: GgufFile
) -> None:
    """Raise UserError for a key that could change logits, and that says what we do not compute."""
    expected = {*known.keys, KEY_LENGTH, *(ROTARY_KEYS if known.rotary else ())}
    for key, value in own.items():
        if key in expected - derived.keys():
            continue
        allowed = (derived[key],) if key in derived else WITHOUT_EFFECT.get(key, ())
        if allowed is not None and value not in allowed:
            raise UserError(
                f"{file.path}: the key {known.name}.{key} is not supported with this value",
                found=value,
                allowed=", ".join(map(str, allowed)) or None,
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
