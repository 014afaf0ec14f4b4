"""RevBiFPN (2206.14098): a reversible bidirectional feature pyramid, and its classifier."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "LoadedVisionRun": "load",
        "RevBiFPN": "revbifpn",
        "RevBiFPNSettings": "settings",
        "VisionPlan": "plan",
        "count_network": "counts",
        "evaluate_run": "evaluate",
        "load_vision_run": "load",
        "plan_vision_recipe": "plan",
        "revbifpn_settings": "settings",
        "space_to_depth": "stem",
        "train_on_images": "run",
    },
)
