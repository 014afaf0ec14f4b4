"""One decoder: attention, positions, normalisation, feed-forward, the fused loss, generation."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Decoder": "decoder",
        "KeyValueCache": "cache",
        "generate": "generation",
        "model_shapes": "shapes",
        "module_rows": "rows",
        "linear_cross_entropy": "cross_entropy",
        "linear_token_losses": "cross_entropy",
        "ModelSettings": "settings",
        "PositionScaling": "settings",
        "scaled_frequencies": "position_scaling",
        "scaled_slopes": "position_scaling",
    },
)
