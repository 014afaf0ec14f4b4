"""The tokens that a run was trained on, read again in the order of training."""

from collections.abc import Iterator

import numpy as np

from feldspar.plan.summary import plan_recipe
from feldspar.recipe.root import Recipe
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import open_training_data, source_tokens

SEQUENCES_AT_ONCE = 256


def seen_tokens(recipe: Recipe, shards: ShardSet) -> Iterator[np.ndarray]:
    """Yield each sequence of the phases that read shards, as a flat array with its labels."""
    plan = plan_recipe(recipe, source_tokens(shards, recipe))
    reader = open_training_data(recipe, plan.timeline, shards).reader
    of_shards = [phase for phase in plan.timeline.phases if not recipe.phases[phase.index].pairs]
    for phase in of_shards:
        for first in range(0, phase.sequences, SEQUENCES_AT_ONCE):
            stop = min(first + SEQUENCES_AT_ONCE, phase.sequences)
            yield from reader.read(phase.index, first, stop).tokens
