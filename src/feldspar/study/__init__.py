"""Many runs of one recipe, each a run folder."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "StudySettings": "settings",
        "SweepPoint": "sweep",
        "Trial": "trials",
        "TrialResult": "trials",
        "run_sweep": "sweep",
        "run_trials": "trials",
    },
)
