"""Which entries of which matrices are kept: densities, counts and masks."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Census": "census",
        "Masks": "masks",
        "Sparsity": "settings",
        "StaticSparsity": "settings",
        "densities": "density",
        "describe_masks": "saved",
        "digest_of_masks": "saved",
        "draw_mask": "masks",
        "kept_count": "density",
        "kept_counts": "density",
        "masks_from_state": "saved",
        "masks_to_state": "saved",
        "sparsities": "density",
        "take_census": "census",
    },
)
