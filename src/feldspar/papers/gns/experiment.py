"""Gradient noise scale from norm layers (2411.00999): does it stand for the model's, and what is a
batch worth that grows with it?

All batches of the recipe read the same tokens, each at several learning rates; a batch is taken at
its best one. Beside them runs of several widths, and of a model that has learnt to read, measure
all their layers. Steps that measure nothing, norm layers or all layers are timed in turn.
"""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

from feldspar.core.errors import UserError
from feldspar.papers.gns.claims import (
    LOOP,
    batch_claims,
    overhead_claim,
    reading_claim,
    relation_claims,
)
from feldspar.papers.gns.equal_loss import BatchRuns, StepTime, fit_step_time, read_curve
from feldspar.papers.gns.norm_against_total import (
    BLOCKS,
    logged_factors,
    read_step_noise,
    relation_figures,
)
from feldspar.papers.gns.tables import (
    curve_figure,
    overhead_tables,
    relation_section,
    worth_section,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    values_of,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.step_time import step_seconds_in_turn
from feldspar.papers.kit.text_baselines import table_beside_baselines, text_baselines
from feldspar.papers.kit.trunk import (
    TRUNK_DATA,
    TRUNK_RECIPE,
    TRUNK_STAGE,
    start_from_trunk,
    trunk_stage,
)
from feldspar.recipe.load import load_recipe
from feldspar.report.page import Section
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult

SCORE = "validation/loss"
BATCH, RATE = "choose.batch", "parametrization.learning_rate"
MEASURED_BATCH = "constant-32"
"""The batch whose run is measured in all its layers too."""
BASELINES = {Scale.QUICK: "constant-64", Scale.SMALL: "constant-64", Scale.PAPER: "constant"}
"""The constant batch that the ramp ends at."""
EXACT = ("noise_scale.coverage=all", "noise_scale.calibrate=none")
MEASUREMENTS = {
    "none": ("noise_scale=null",),
    "none again": ("noise_scale=null",),
    "norm": ("noise_scale.calibrate=none",),
    "norm and micro-batches": (),
    "all": EXACT,
}
"""The settings of the timed steps, by what they measure; the second arm is a control."""
TIMED = {256: 30, 512: 20}
"""Widths of the timed steps, and their number."""
QUICK_TIMED = {256: 3}
"""The same for quick runs, whose verdict is left open: steps of width 512 would take a minute."""
TIMED_SHAPE = ("model.n_layers=2", "phases.0.batch.sequences=32", f"{BATCH}=constant-32")
SEEDS = 3
WIDTHS = {128: 800, 256: 400}
"""Widths beyond the recipe's 64 at which all layers are measured, and the steps of a run."""
READING_BATCH, READING_STEPS = 256, 30
"""With 8 sequences in 240 steps, the gradient of a model that reads drowned in noise: the factor of
a tenth lay between 0.3 and 5.7, with all seeds. Its error falls with the sequences of a step and
with the root of the steps."""
READING = (
    *EXACT,
    "evaluation.every=100% of run",
    'schedule.learning_rate=[{"to": 0.1, "over": "5% of run"}, {"to": 0.1, "over": "rest"}]',
)
"""The trunk read on at a tenth of its peak rate, with all layers measured."""
QUICK_TOKENS = 81_920
FEW_SEQUENCES = "evaluation.validation_sequences=16"
QUICK = (
    f"phases.0.length={QUICK_TOKENS} tokens",
    "noise_scale.half_life=4096 tokens",
    "evaluation.every=20% of run",
    FEW_SEQUENCES,
)
QUICK_BATCHES = ("constant-32", "constant-64", "ramp", LOOP)


def recipe_of(scale: Scale) -> str:
    """Return the shipped recipe of a scale."""
    return "gns/paper" if scale is Scale.PAPER else "gns/small"


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the batches and the runs that measure all layers: of the recipe, wider, and of the
    trunk."""
    recipe = recipe_of(scale)
    found = (
        Stage("batches", recipe, lambda _: batch_trials(scale), SCORE),
        Stage("exact", recipe, lambda _: exact_trials(scale), SCORE),
    )
    if scale is Scale.PAPER:
        return found
    return (
        *found,
        Stage("widths", recipe, lambda _: width_trials(scale), SCORE),
        trunk_stage(scale),
        Stage(
            "reading",
            TRUNK_RECIPE,
            lambda _: reading_trials(scale),
            SCORE,
            needs=(TRUNK_STAGE,),
        ),
    )


def batch_trials(scale: Scale) -> list[Trial]:
    """Return every batch at every rate with every seed; at the paper's scale one run of each.

    Raises UserError where the recipe has no study of batches and rates.
    """
    loaded = load_recipe(recipe_of(scale)).recipe
    if scale is Scale.PAPER:
        return [trial_of({BATCH: name}, 0) for name in loaded.choices["batch"]]
    if scale is Scale.QUICK:
        rate = loaded.parametrization.learning_rate
        return [trial_of({BATCH: name, RATE: rate}, 0, shortened(name)) for name in QUICK_BATCHES]
    study = loaded.study
    if study is None or {BATCH, RATE} != set(study.vary):
        raise UserError(f"{recipe_of(scale)} has no study of {BATCH} and {RATE}")
    points = product(*(list(study.vary[key]) for key in (BATCH, RATE)))
    return [
        trial_of({BATCH: name, RATE: rate}, seed)
        for name, rate in points
        for seed in range(study.seeds)
    ]


def exact_trials(scale: Scale) -> list[Trial]:
    """Return the measured batch with all layers measured, at the recipe's own rate."""
    if scale is Scale.PAPER:
        return [trial_of({BATCH: BASELINES[scale]}, 0, EXACT)]
    study = load_recipe(recipe_of(scale)).recipe.study
    quick = scale is Scale.QUICK
    seeds = 1 if quick or study is None else study.seeds
    extra = (*EXACT, *(QUICK if quick else ()))
    return [trial_of({BATCH: MEASURED_BATCH}, seed, extra) for seed in range(seeds)]


def width_trials(scale: Scale) -> list[Trial]:
    """Return the wider models, of two layers, with all layers measured, seeds fastest."""
    quick = scale is Scale.QUICK
    extra = (*EXACT, "model.n_layers=2", *(QUICK if quick else ()))
    return [
        trial_of(
            {BATCH: MEASURED_BATCH, "model.d_model": width, "model.d_ff": 4 * width},
            seed,
            (*extra, f"phases.0.length={20 if quick else steps} steps"),
        )
        for width, steps in WIDTHS.items()
        for seed in range(1 if quick else SEEDS)
    ]


def reading_trials(scale: Scale) -> list[Trial]:
    """Return the trunks, read on with all layers measured."""
    quick = scale is Scale.QUICK
    longer = (f"phases.0.length={READING_STEPS} steps", f"phases.0.batch.sequences={READING_BATCH}")
    settings = (*READING, *(("phases.0.length=10 steps", FEW_SEQUENCES) if quick else longer))
    return [
        trial_of({}, seed, (*settings, start_from_trunk(scale, seed)))
        for seed in range(1 if quick else SEEDS)
    ]


def shortened(batch: str) -> list[str]:
    """Return the overrides of a quick run; the ramp is as long as the run."""
    over = [f"phases.0.batch.over={QUICK_TOKENS} tokens"] if batch == "ramp" else []
    return [*QUICK, *over]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the figures of the stages that were run: curves at the best rates, both noise scales."""
    found: Figures = {}
    if "batches" in results:
        batches, time = batches_of(results["batches"])
        by_rate = losses_by_rate(results["batches"])
        found |= {
            "calibrated": calibrated(results),
            "batches": {name: runs.as_dict() for name, runs in batches.items()},
            "rates": {
                name: [{"rate": rate, "losses": losses} for rate, losses in own.items()]
                for name, own in by_rate.items()
            },
            "step_time": vars(time),
        }
    if "exact" in results:
        found |= relation_figures([read_step_noise(run.folder) for run in results["exact"]])
    if "widths" in results:
        seeds = len(results["widths"]) // len(WIDTHS)
        found["width_factors"] = {
            str(width): factors_of(results["widths"][place * seeds : (place + 1) * seeds])
            for place, width in enumerate(WIDTHS)
        }
    if "reading" in results:
        noises = [read_step_noise(run.folder) for run in results["reading"]]
        found["reading_factors"] = [noise.factors(BLOCKS).tolist() for noise in noises]
        found["reading_stray_by_chance"] = [noise.stray_by_chance(BLOCKS) for noise in noises]
    return found


def measure_without_runs(scale: Scale) -> Figures:
    """Return what measuring costs, and bits per byte without a model on the tokens of a batch."""
    return {
        "step_seconds": {
            str(width): seconds_by_measurement(width, scale, steps)
            for width, steps in (QUICK_TIMED if scale is Scale.QUICK else TIMED).items()
        },
        "baselines": text_baselines(recipe_of(scale), QUICK if scale is Scale.QUICK else ()),
    }


def factors_of(runs: Sequence[TrialResult]) -> list[list[float]]:
    """Return the factor from norm layers to total by seed and tenth of the tokens."""
    return [read_step_noise(run.folder).factors(BLOCKS).tolist() for run in runs]


def seconds_by_measurement(width: int, scale: Scale, steps: int) -> dict[str, list[float]]:
    """Return the processor seconds of steps, in turn, by the kind of measurement."""
    shape = (f"model.d_model={width}", f"model.d_ff={4 * width}", *TIMED_SHAPE)
    arms = {name: (*shape, *own) for name, own in MEASUREMENTS.items()}
    return step_seconds_in_turn(recipe_of(scale), arms, steps)


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    baseline = BASELINES[scale]
    batches = {name: BatchRuns.from_dict(name, own) for name, own in figures["batches"].items()}
    time = StepTime(**figures["step_time"])
    seconds = figures.get("step_seconds", {})
    figure = curve_figure(batches, None)
    judged = [
        *relation_claims(figures, claims),
        *batch_claims(batches, baseline, time, claims),
        *small_claims(figures, scale, claims),
    ]
    sections = [worth_section(batches, figures.get("rates", {}), baseline, time, figure)]
    if "relation" in figures:
        sections.insert(0, relation_section(figures, batches))
    if seconds:
        sections.append(Section("What measuring costs", (), overhead_tables(seconds)))
    beside = []
    if "baselines" in figures:
        losses = {name: fmean(own.final_losses) for name, own in batches.items()}
        what = "held-out text, each batch at its best rate"
        beside.append(table_beside_baselines(losses, figures["baselines"], what))
    return Findings(tuple(judged), tuple(sections), figure, tuple(beside))


def small_claims(figures: Figures, scale: Scale, claims: StatedClaims) -> list[Claim]:
    """Return the claims that the paper's own runs do not show: on the trunk, and on time."""
    if scale is Scale.PAPER:
        return []
    return [
        reading_claim(figures, claims)
        if "reading_factors" in figures
        else claims.unrecorded("one-factor-serves-a-model-that-reads"),
        overhead_claim(figures["step_seconds"], claims)
        if "step_seconds" in figures
        else claims.unrecorded("norm-layers-are-free"),
    ]


def batches_of(runs: Sequence[TrialResult]) -> tuple[dict[str, BatchRuns], StepTime]:
    """Return every batch at its best rate, and the time of a step by these runs.

    Raises UserError where a batch diverged at every rate.
    """
    found: dict[str, BatchRuns] = {}
    times = []
    for name, by_rate in losses_by_rate(runs).items():
        best = min(by_rate, key=lambda rate: fmean(by_rate[rate]))
        if not math.isfinite(fmean(by_rate[best])):
            raise UserError(f"the batch {name} diverged at every learning rate")
        read = [read_curve(run.folder) for run in runs if is_of(run, name, best)]
        times += [seconds for _, seconds in read]
        found[name] = BatchRuns(name, best, tuple(curve for curve, _ in read))
    return found, fit_step_time(times)


def losses_by_rate(runs: Sequence[TrialResult]) -> dict[str, dict[float | None, list[float]]]:
    """Return the final losses by seed of every batch at every rate; None is the recipe's rate."""
    found: dict[str, dict[float | None, list[float]]] = {}
    for run in runs:
        values = values_of(run.trial)
        by_rate = found.setdefault(values[BATCH], {})
        by_rate.setdefault(values.get(RATE), []).append(run.score)
    return found


def is_of(run: TrialResult, batch: str, rate: float | None) -> bool:
    """Return True for a run of that batch and rate."""
    values = values_of(run.trial)
    return (values[BATCH], values.get(RATE)) == (batch, rate)


def calibrated(results: Results) -> list[list[float]]:
    """Return the factors that the runs of the measured batch calibrated, by seed and block."""
    rate = load_recipe(recipe_of(Scale.SMALL)).recipe.parametrization.learning_rate
    wanted = [run for run in results["batches"] if is_of(run, MEASURED_BATCH, rate)]
    return [logged_factors(run.folder, BLOCKS).tolist() for run in wanted]


PAPER = Paper(
    name="gns",
    folder=Path(__file__).parent,
    data=Data("gns/small"),
    stages=stages,
    measure=measure,
    judge=judge,
    more_data=(TRUNK_DATA,),
    separate=frozenset(("batches", "exact", "widths", "reading")),
    measure_without_runs=measure_without_runs,
)
