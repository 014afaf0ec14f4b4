"""Many runs of one recipe, each a run folder."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Candidate": "coordinate_points",
        "CoordinateCheck": "coordinate_check",
        "Judgement": "coordinate_check",
        "check_recipe": "coordinate_check",
        "judge": "coordinate_check",
        "write_check": "coordinate_page",
        "Family": "family",
        "run_family": "family",
        "targets_of_widths": "family",
        "RunPoint": "run_points",
        "read_runs": "run_points",
        "Curve": "curves",
        "Move": "curves",
        "compare_curves": "curves",
        "search_proxy": "search",
        "StudySettings": "settings",
        "SweepPoint": "sweep",
        "Trial": "trials",
        "TrialResult": "trials",
        "run_sweep": "sweep",
        "Transfer": "transfer",
        "run_transfer": "transfer",
        "write_transfer": "transfer_report",
        "run_trials": "trials",
    },
)
