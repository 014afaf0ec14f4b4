"""Read figures for a release, each tied to the checkpoint that it was measured on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json
from feldspar.runtime.checkpoint import Checkpoint


def read_evaluations(
    files: Sequence[Path], held_out: Mapping[str, Any] | None, checkpoints: Sequence[Checkpoint]
) -> list[dict[str, Any]]:
    """Return title, figures and checkpoint of each evaluation; ``held_out`` comes first.

    ``files`` hold what ``feldspar evaluate --json`` printed. The checkpoint is None where the
    figures do not name one. Raises UserError for figures of weights that none of ``checkpoints``
    has.
    """
    found = [] if held_out is None else [("held-out documents", held_out)]
    found += [(path.stem, read_json(path)) for path in files]
    weights = [checkpoint.identity()["weights"] for checkpoint in checkpoints]
    evaluations = []
    for title, figures in found:
        named = _named_checkpoints(figures)
        for each in named:
            if each.get("weights") not in weights:
                raise UserError(
                    f"--evaluation: the figures of {title} were measured on weights that no "
                    "checkpoint of this run has",
                    found=f"a checkpoint at {each.get('tokens')} tokens",
                    allowed=f"checkpoints at {', '.join(str(c.position) for c in checkpoints)}",
                    do="measure this run: feldspar evaluate RUN --json",
                )
        # Tasks that were measured on several checkpoints name them one by one.
        checkpoint = named[0] if named and all(each == named[0] for each in named) else None
        evaluations.append({"title": title, "figures": figures, "checkpoint": checkpoint})
    return evaluations


def _named_checkpoints(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the checkpoints that figures name: once for all of them, or in each task."""
    places = [figures, *(each for each in figures.values() if isinstance(each, Mapping))]
    return [each["checkpoint"] for each in places if isinstance(each.get("checkpoint"), Mapping)]
