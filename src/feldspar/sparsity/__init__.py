"""Which entries of which matrices are kept: densities, counts and masks."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Masks": "masks",
        "Sparsity": "settings",
        "StaticSparsity": "settings",
        "densities": "density",
        "draw_mask": "masks",
        "kept_count": "density",
    },
)
