"""Read the batches and the noise scale that a run logged: repeat its decisions, or fit them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.report.run_report import read_metrics

if TYPE_CHECKING:
    from feldspar.plan.batch_replay import Replay


def replay_run(run: Path, overrides: Sequence[str] = ()) -> "Replay":
    """Repeat a run's decisions on its batch from its log, by the rules under ``overrides``.

    Raises UserError for a run whose batch does not follow the noise scale.
    """
    records = read_metrics(run)
    from feldspar.plan.batch_replay import replay_batches  # loads torch
    from feldspar.train.data import plan_loaded

    planned = plan_loaded(load_recipe(str(run), list(overrides)))
    if all(phase.steering is None for phase in planned.timeline.phases):
        raise UserError(f"{run}: no phase has a batch of type noise_scale")
    return replay_batches(planned, records)


def fit_schedule(
    run: Path,
    minimum: int,
    maximum: int,
    *,
    quantum: int | None = None,
    gain: float = 0.5,
    level_ratio: float = 2**0.5,
    phase: str | None = None,
) -> dict[str, Any]:
    """Fit a fixed schedule of batch sizes to the noise scale that a run measured.

    The result is that of ``fitted_schedule`` with the tokens and steps of the run under the
    schedule. Raises UserError for numbers outside their range and for a run without a noise scale.
    """
    values: dict[str, Any] = {
        "minimum": f"{minimum} sequences",
        "maximum": f"{maximum} sequences",
        "quantum": f"{quantum or minimum} sequences",
        "gain": gain,
        "level_ratio": level_ratio,
    }
    try:
        rules = NoiseScaleBatch.model_validate({"type": "noise_scale", **values})
    except ValidationError as error:
        [problem, *_] = error.errors()
        where = "".join(f"--{str(key).replace('_', '-')}: " for key in problem["loc"])
        raise UserError(f"{where}{problem['msg']}") from None
    records = read_metrics(run)
    from feldspar.plan.batch_fit import fitted_schedule  # loads torch
    from feldspar.train.data import plan_loaded

    planned = plan_loaded(load_recipe(str(run)))
    fitted = fitted_schedule(planned, records, rules, phase)
    after = plan_loaded(load_recipe(str(run), [fitted["override"]]))
    return fitted | {"tokens": after.timeline.length, "steps": after.timeline.steps}
