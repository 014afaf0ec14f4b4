"""How well trained runs fill gaps in held-out documents."""

from collections.abc import Collection, Sequence
from pathlib import Path

from feldspar.core.progress import progress
from feldspar.evaluate.tasks.filled_gaps import InfillingScore, evaluate_infilling
from feldspar.train.data import open_shards
from feldspar.train.load import load_run
from feldspar.train.text_model import text_model_of

TOKENS_PER_SOURCE = 60_000
GAPS_SEED = 0
"""The same gaps for every run, whatever it was trained with."""


def infilling_of_runs(runs: Sequence[Path], sources: Collection[str]) -> list[InfillingScore]:
    """The score of each run over the named sources together."""
    scores = []
    with progress("filling gaps", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            found = evaluate_infilling(
                text_model_of(run),
                open_shards(run.recipe),
                GAPS_SEED,
                max_tokens_per_source=TOKENS_PER_SOURCE,
            )
            own = [score for name, score in found.items() if name in sources]
            scores.append(sum(own, InfillingScore()))
            advance(1)
    return scores
