"""The plan of a run from its recipe alone: timeline, parameters, FLOPs."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Plan": "summary",
        "plan_recipe": "summary",
        "effective_table": "summary",
        "declared_tokens": "summary",
        "Timeline": "timeline",
        "PhasePlan": "timeline",
        "StepPlan": "timeline",
        "build_timeline": "timeline",
        "training_flops": "flops",
        "flops_per_token": "flops",
        "Basis": "law",
        "ComputeLaw": "law",
        "ParametricLaw": "law",
        "Point": "law",
        "PowerLaw": "law",
        "compute_law": "law",
        "parametric_law": "law",
        "LawFit": "law_fit",
        "fit_law": "law_fit",
        "read_points": "law_points",
        "law_record": "law_report",
    },
)
