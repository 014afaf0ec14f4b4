"""One module a paper: its claims, its experiment, its figure."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Claim": "claims",
        "Verdict": "claims",
        "Paper": "paper",
        "Scale": "paper",
        "PAPERS": "papers",
        "paper_named": "papers",
        "run_experiment": "experiment",
        "planned_costs": "experiment",
        "write_report": "report",
        "judge_again": "report",
        "plain": "paper",
    },
)
