"""Per-example gradient norms, and the gradient noise scale from them."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Moments": "statistics",
        "StepStatistics": "statistics",
        "Tracker": "tracker",
        "instrument": "tracker",
    },
)
