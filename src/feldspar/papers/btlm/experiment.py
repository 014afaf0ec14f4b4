"""BTLM-3B-8K (2309.11568): single changes to the Cerebras-GPT recipe, and two context lengths.

``contexts`` trains the two-phase run beside one that keeps the first phase's context. The ladder
trains each change alone and all together, at one context.
"""

from pathlib import Path

from feldspar.papers.btlm.contexts import (
    ARMS,
    CONTEXTS,
    context_claims,
    context_section,
    context_trials,
    measure_contexts,
    position_figure,
)
from feldspar.papers.btlm.inference import inference_claims
from feldspar.papers.btlm.ladder import (
    LADDER_RECIPE,
    LADDER_STAGE,
    RATES_STAGE,
    SCORE,
    has_ladder,
    ladder_arms,
    ladder_claims,
    ladder_section,
    ladder_trials,
    measure_ladder,
    rate_trials,
)
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.page import Table
from feldspar.study.trials import Trial

CONTEXTS_SCORE = "validation/loss"
PAPER_RUN = Trial("btlm-3b-8k", ())


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the contexts and the ladder; at the paper's scale its one run."""

    def contexts(recipe: str, trials: list[Trial]) -> Stage:
        return Stage("contexts", recipe, lambda _: trials, CONTEXTS_SCORE, keeps_weights=True)

    if scale is Scale.PAPER:
        return (contexts("btlm/paper", [PAPER_RUN]),)
    return (
        contexts(CONTEXTS, context_trials(scale)),
        Stage(RATES_STAGE, LADDER_RECIPE, lambda _: rate_trials(scale), SCORE),
        Stage(
            LADDER_STAGE,
            LADDER_RECIPE,
            lambda results: ladder_trials(results, scale),
            SCORE,
            needs=(RATES_STAGE,),
        ),
    )


def measure(results: Results, scale: Scale) -> Figures:
    """Read the figures of the stages that were run: the contexts, and the ladder's losses."""
    found: Figures = {}
    if "contexts" in results:
        arms = ARMS[:1] if scale is Scale.PAPER else ARMS
        contexts = by_name(results["contexts"], arms)
        folders = {name: [run.folder for run in runs] for name, runs in contexts.items()}
        found |= measure_contexts(folders, scale)
    if LADDER_STAGE in results:
        found |= measure_ladder(results, scale)
    return found


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings; the paper's own run shows its switch of contexts only."""
    figure = position_figure(figures["loss_by_position"])
    judged = [*context_claims(figures, claims), *inference_claims(claims)]
    sections = [context_section(figures, figure)]
    tables: tuple[Table, ...] = ()
    if scale is not Scale.PAPER:
        judged += ladder_claims(figures, claims)
    if has_ladder(figures):
        sections.append(ladder_section(figures))
        tables = (ladder_arms(figures),)
    return Findings(tuple(judged), tuple(sections), figure, tables)


PAPER = Paper(
    name="btlm",
    folder=Path(__file__).parent,
    data=Data(LADDER_RECIPE),
    more_data=(Data(CONTEXTS),),
    stages=stages,
    measure=measure,
    judge=judge,
    separate=frozenset({"contexts", LADDER_STAGE}),
)
