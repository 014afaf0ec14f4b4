"""Position interpolation for ALiBi (2310.13017): reading beyond the length trained at.

The same seeds train ALiBi and rotary positions at one length, on text of which a third has to be
recalled from earlier text. ALiBi's slopes times that length are the paper's. From ALiBi two short
fine-tunings go on at four times the length: one with slopes divided by four, one without. Each
model is read at one to four times the length.
"""

from dataclasses import dataclass
from pathlib import Path

from feldspar.papers.alibi_interpolation.claims import judge
from feldspar.papers.alibi_interpolation.reading import LINEAR, NONE, TRAINED, read_beyond
from feldspar.papers.kit.paper import Data, Figures, Paper, Results, Scale, Stage, by_name
from feldspar.recipe.load import load_recipe
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

SMALL, LARGE = "alibi-interpolation/small", "alibi-interpolation/paper"
TEXT = {Scale.QUICK: "guides", Scale.SMALL: "guides", Scale.PAPER: "slimpajama"}
"""The source whose held-out loss is measured."""
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: range(1, 2), Scale.SMALL: range(1, 6), Scale.PAPER: range(1)}
"""Seed 0 is left out: shape, rates and lengths were chosen by it."""
QUICK_STEPS = {"pretrain": 40, "fine-tune": 10}
"""Steps of a quick run's first training and of what follows it."""


@dataclass(frozen=True)
class Arm:
    """A model by its choices, and the scalings of positions that it is read with."""

    positions: str
    training: str
    scalings: tuple[str, ...]


PRETRAINED = {
    "alibi": Arm("alibi", "none", (NONE, LINEAR)),
    "rotary": Arm("rotary", "none", (NONE, LINEAR)),
}
TUNED = {
    "fine-tuned": Arm("alibi", "fine-tuned", (TRAINED,)),
    "unscaled": Arm("alibi", "unscaled", (TRAINED,)),
}
"""Trained further from ``alibi``, at four times its length: with slopes divided by four, and as
they were."""
AT_PAPER_SCALE = {"alibi": PRETRAINED["alibi"], "fine-tuned": TUNED["fine-tuned"]}


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the first trainings and the fine-tunings; at the paper's scale its two runs."""
    if scale is Scale.PAPER:
        return (Stage("lengths", LARGE, lambda _: paper_trials(), SCORE, keeps_weights=True),)
    return (
        Stage("lengths", SMALL, lambda _: trials(scale), SCORE, keeps_weights=True),
        Stage("tuned", SMALL, lambda done: tuned_trials(done, scale), SCORE, keeps_weights=True),
    )


def paper_trials() -> list[Trial]:
    """Return the run of the paper's size, and the one that is fine-tuned."""
    return [
        trial_of({"choose.training": arm.training}, seed)
        for arm in AT_PAPER_SCALE.values()
        for seed in SEEDS[Scale.PAPER]
    ]


def trials(scale: Scale) -> list[Trial]:
    """Return both kinds of positions with every seed, seeds fastest."""
    return [
        trial_of({"choose.positions": arm.positions}, seed, shortened(scale, "pretrain"))
        for arm in PRETRAINED.values()
        for seed in SEEDS[scale]
    ]


def tuned_trials(done: Results, scale: Scale) -> list[Trial]:
    """Return both fine-tunings of each seed's ALiBi model, seeds fastest."""
    runs = by_name(done["lengths"], tuple(PRETRAINED))["alibi"] if done else []
    started = [[f"start_from.path={run.folder}"] for run in runs] or [[] for _ in SEEDS[scale]]
    short = shortened(scale, "fine-tune")
    return [
        trial_of({"choose.training": arm.training}, seed, [*start, *short])
        for arm in TUNED.values()
        for seed, start in zip(SEEDS[scale], started, strict=True)
    ]


def shortened(scale: Scale, training: str) -> list[str]:
    """Return the overrides of a quick run."""
    steps = QUICK_STEPS[training]
    return [f"phases.0.length={steps} steps"] if scale is Scale.QUICK else []


def trained_length(scale: Scale) -> int:
    """Return the tokens of a window that the models were trained at."""
    recipe = load_recipe(LARGE if scale is Scale.PAPER else SMALL).recipe
    return recipe.context_length(recipe.phases[0])


def measure(results: Results, scale: Scale) -> Figures:
    """Read every arm beyond the length that it was trained at; recall only of small models."""
    is_paper = scale is Scale.PAPER
    arms = AT_PAPER_SCALE if is_paper else PRETRAINED | TUNED
    runs = by_name(results["lengths"], tuple(AT_PAPER_SCALE if is_paper else PRETRAINED))
    if not is_paper:
        runs |= by_name(results["tuned"], tuple(TUNED))
    return read_beyond(
        {name: [run.folder for run in runs[name]] for name in arms},
        {name: arm.scalings for name, arm in arms.items()},
        trained_length(scale),
        TEXT[scale],
        recalls=not is_paper,
    )


PAPER = Paper(
    name="alibi-interpolation",
    folder=Path(__file__).parent,
    data=Data(SMALL),
    stages=stages,
    measure=measure,
    judge=lambda figures, scale, claims: judge(figures, trained_length(scale), claims),
)
