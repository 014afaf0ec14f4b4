"""Reversible execution: activations are rebuilt from a block's outputs instead of being kept."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ActivationMemory": "chain",
        "Part": "steps",
        "ReversibleBlock": "block",
        "ReversibleChain": "chain",
        "Step": "steps",
        "is_recomputing": "replay",
        "reconstruction_errors": "drift",
        "recomputed": "recompute",
    },
)
