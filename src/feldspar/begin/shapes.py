"""The ladder of model shapes that a new recipe chooses from, and the settings that all share.

The lowest rungs follow the quickstart's speed record (docs/results/quickstart-record.md): Muon, a
context of 256 tokens, d 96 with 3 blocks for five minutes of two cores. Widths differ, and muP
carries the learning rate of the record from one to the other.
"""

from dataclasses import dataclass
from typing import Any

SMALL_HEAD, LARGE_HEAD = 32, 64
"""Widths of a head; the larger one from d 512 on."""
LEARNING_RATE = 0.01
"""The record's best peak rate (10e-3), at d 96; muP carries it to other widths."""
RECORD_RATIO, USUAL_RATIO = 6.0, 20.0
"""Tokens per parameter: a little less than those of the record's best run (7.3), so that five
minutes of its machine give its shape; and of compute-optimal larger models (Hoffmann et al. 2022,
arXiv 2203.15556)."""


@dataclass(frozen=True)
class Rung:
    """One shape. Its vocabulary may be smaller where there is little text."""

    d_model: int
    n_layers: int
    d_ff: int
    context: int
    most_vocabulary: int
    tokens_per_parameter: float
    """The least that makes this shape better than the one below it."""

    @property
    def head_dim(self) -> int:
        """Return the width of a head."""
        return SMALL_HEAD if self.d_model < 512 else LARGE_HEAD


LADDER = (
    Rung(64, 2, 172, 256, 2048, RECORD_RATIO),
    Rung(96, 3, 256, 256, 4096, RECORD_RATIO),
    Rung(128, 4, 344, 256, 4096, RECORD_RATIO),
    Rung(160, 5, 432, 256, 4096, RECORD_RATIO),
    Rung(224, 6, 600, 256, 8192, USUAL_RATIO),
    Rung(320, 8, 856, 512, 8192, USUAL_RATIO),
    Rung(384, 10, 1024, 512, 8192, USUAL_RATIO),
    Rung(512, 12, 1376, 1024, 16384, USUAL_RATIO),
    Rung(768, 12, 2048, 1024, 32768, USUAL_RATIO),
    Rung(1024, 16, 2752, 1024, 32768, USUAL_RATIO),
    Rung(1536, 20, 4096, 2048, 32768, USUAL_RATIO),
    Rung(2048, 24, 5504, 2048, 32768, USUAL_RATIO),
)
"""Shapes by rising size."""
VOCABULARIES = (
    (50_000, 512),
    (200_000, 768),
    (1_000_000, 1024),
    (4_000_000, 2048),
    (200_000_000, 4096),
    (2_000_000_000, 8192),
    (20_000_000_000, 16384),
)
"""Bytes of text below which a vocabulary of so many tokens is large enough."""
LARGEST_VOCABULARY = 32768
SMALL_VOCABULARIES = (1024, 512, 384, 300, 257)
"""Vocabularies for text of few different words, to be tried one after the other."""


def vocabulary_for(text_bytes: float, rung: Rung) -> int:
    """Return the size of the vocabulary by the amount of text and the size of the model."""
    sizes = (size for limit, size in VOCABULARIES if text_bytes < limit)
    return min(next(sizes, LARGEST_VOCABULARY), rung.most_vocabulary)


def model_sections(rung: Rung) -> dict[str, dict[str, Any]]:
    """Return the sections of a recipe that follow from the shape, as plain values."""
    return {
        "model": {
            "n_layers": rung.n_layers,
            "d_model": rung.d_model,
            "n_heads": rung.d_model // rung.head_dim,
            "d_ff": rung.d_ff,
            "max_sequence_length": rung.context,
            "positions": "rotary",
            "feed_forward": "swiglu",
            "norm": {"type": "rms", "epsilon": 1e-5},
            "bias": False,
            "tied_embeddings": True,
        },
        "parametrization": {
            "type": "mup",
            "base_d_model": 64,
            "base_d_ff": 172,
            "init_std": 0.08,
            "learning_rate": LEARNING_RATE,
            "embedding_multiplier": 10,
            "attention_multiplier": rung.head_dim**0.5,
        },
        "optimizer": {
            "type": "muon",
            "betas": [0.9, 0.95],
            "weight_decay": 0.1,
            "clip_norm": 1.0,
        },
        "schedule": {
            "learning_rate": [{"to": 1, "over": "3% of run"}, {"to": 0.02, "over": "rest"}]
        },
    }
