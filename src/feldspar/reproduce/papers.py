"""The papers that can be reproduced, by name."""

from feldspar.core.errors import UserError, nearest
from feldspar.reproduce import (
    alibi_interpolation,
    bilingual,
    btlm,
    cerebras_gpt,
    crystal,
    gns,
    mediswift,
    slimpajama_dc,
    supar,
)
from feldspar.reproduce.paper import Paper

PAPERS: dict[str, Paper] = {
    paper.name: paper
    for paper in (
        cerebras_gpt.PAPER,
        btlm.PAPER,
        supar.PAPER,
        slimpajama_dc.PAPER,
        gns.PAPER,
        crystal.PAPER,
        alibi_interpolation.PAPER,
        mediswift.PAPER,
        bilingual.PAPER,
    )
}


def paper_named(name: str) -> Paper:
    """The paper of that name. Raises UserError that names the nearest."""
    if name not in PAPERS:
        hint = nearest(name, PAPERS)
        raise UserError(
            f"{name!r} is no paper that can be reproduced"
            + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=PAPERS,
        )
    return PAPERS[name]
