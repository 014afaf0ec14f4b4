"""The facts in which an architecture of llama.cpp differs from its Hugging Face class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from feldspar.huggingface.tensor_rules import Layout

Configuration = Mapping[str, Any]

CONTEXT, WIDTH, BLOCKS = "context_length", "embedding_length", "block_count"
FEED_FORWARD = "feed_forward_length"
HEADS, KV_HEADS = "attention.head_count", "attention.head_count_kv"
KEY_LENGTH, VALUE_LENGTH = "attention.key_length", "attention.value_length"
RMS_EPSILON, EPSILON = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
SLIDING_WINDOW = "attention.sliding_window"
MAX_ALIBI_BIAS = "attention.max_alibi_bias"


def _nothing(_: Configuration) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class GgufArchitecture:
    """One architecture of llama.cpp.

    The functions take a ``config.json`` of which the values of ``keys`` are known.
    """

    name: str
    """The value of ``general.architecture``."""
    model_type: str
    """The class's ``model_type`` in ``config.json``."""
    keys: Mapping[str, str]
    """Keys of ``config.json`` by GGUF key, which stands in the file behind ``NAME.``."""
    optional: tuple[str, ...] = (KEY_LENGTH, KV_HEADS)
    """Keys that a file may lack."""
    implied: Callable[[Configuration], dict[str, Any]] = _nothing
    """The values of ``config.json`` that llama.cpp's code stands for, without a key in the file."""
    derived: Callable[[Configuration], Mapping[str, Any]] = _nothing
    """Values of GGUF keys that follow from the ``config.json``; a file with others is refused."""
    from_tensors: Mapping[str, tuple[str, Any, Any]] = field(default_factory=dict)
    """For a key of ``config.json`` a tensor, the value where the file holds it, and else."""
    layouts: Callable[[Configuration], Mapping[str, Layout]] = _nothing
    """Layouts by a part of a tensor's name, such as ``attn_q``."""
    rotary: Literal["whole", "partial", "two bases"] | None = "whole"
    """Rotary positions: of whole heads or of a part, or with a base of layers with a window."""

    def head_dim(self, configuration: Configuration) -> int:
        """Return the width of a head."""
        width, heads = configuration[self.keys[WIDTH]], configuration[self.keys[HEADS]]
        return configuration.get("head_dim") or width // heads
