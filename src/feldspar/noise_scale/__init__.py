"""Per-example gradient norms, and the gradient noise scale from them."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Calibration": "calibration",
        "Estimate": "meter",
        "GroupTracker": "group_tracker",
        "Moments": "statistics",
        "NoiseScaleMeter": "meter",
        "StepStatistics": "statistics",
        "Tracker": "tracker",
        "instrument": "tracker",
        "noise_scale_of_steps": "analysis",
        "regress_through_origin": "analysis",
        "track_groups": "group_tracker",
    },
)
