"""Initial values of a soft prompt's vectors, set when a phase first has them."""

import torch
from torch.distributed.tensor import DTensor

from feldspar.core.streams import numpy_stream
from feldspar.model.decoder import Decoder
from feldspar.recipe.root import Recipe
from feldspar.runtime.shards import Box, local_part


@torch.no_grad()
def begin_soft_prompt(decoder: Decoder, recipe: Recipe, phase_index: int, n_tokens: int) -> None:
    """Copy random rows of the current token table into the soft prompt, if the phase asks for it.

    Nothing happens unless the phase is the first that has a soft prompt: later ones go on with it.
    The ``normal`` values are there since the model was built. ``n_tokens`` rows are real tokens.
    """
    settings = recipe.phases[phase_index].soft_prompt
    earlier = any(phase.soft_prompt_length for phase in recipe.phases[:phase_index])
    if decoder.soft_prompt is None or settings is None or settings.length == 0 or earlier:
        return
    if settings.initialisation == "normal":
        return
    table = decoder.token_embedding.weight
    whole = table.full_tensor() if isinstance(table, DTensor) else table
    stream = numpy_stream(recipe.seed, "model.soft_prompt")
    chosen = stream.choice(n_tokens, settings.length, replace=n_tokens < settings.length)
    rows = whole[torch.from_numpy(chosen).to(whole.device)]
    local, box = local_part(decoder.soft_prompt.weight)
    local.copy_(rows[box.within(Box((0, 0), tuple(rows.shape)))])
