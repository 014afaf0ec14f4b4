"""Each process draws masks from a seed of its own; all of them must hear of it."""

import sys

from feldspar.core.errors import SetupError
from feldspar.core.rows import ParameterRow, Role
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.runtime.distributed import Distribution
from feldspar.sparsity.masks import Masks
from feldspar.train.start import require_same_masks


def check(distribution: Distribution) -> None:
    """One write a line: processes share the pipe, and print may write its end of line apart."""
    rows = [ParameterRow("blocks.0.attention.x", Role.HIDDEN, (8, 8), in_block=True)]
    settings = StaticSparsity(type="static", sparsity=0.5, targets=("attention",))
    require_same_masks(Masks.draw(settings, rows, seed=0))
    try:
        require_same_masks(Masks.draw(settings, rows, seed=distribution.rank))
    except SetupError as error:
        sys.stdout.write(f"rank {distribution.rank}: {error.what}\n")


with Distribution.start(RuntimeSettings()) as distribution:
    check(distribution)
