"""The papers whose experiments can be run, by name."""

from feldspar.core.errors import UserError, nearest
from feldspar.papers.alibi_interpolation import experiment as alibi_interpolation
from feldspar.papers.bilingual import experiment as bilingual
from feldspar.papers.btlm import experiment as btlm
from feldspar.papers.cerebras_gpt import experiment as cerebras_gpt
from feldspar.papers.composition import experiment as composition
from feldspar.papers.crystal import experiment as crystal
from feldspar.papers.gns import experiment as gns
from feldspar.papers.granularity import experiment as granularity
from feldspar.papers.kit.paper import Paper
from feldspar.papers.mediswift import experiment as mediswift
from feldspar.papers.revbifpn import experiment as revbifpn
from feldspar.papers.slimpajama_dc import experiment as slimpajama_dc
from feldspar.papers.supar import experiment as supar

PAPERS: dict[str, Paper] = {
    paper.name: paper
    for paper in (
        cerebras_gpt.PAPER,
        btlm.PAPER,
        supar.PAPER,
        slimpajama_dc.PAPER,
        gns.PAPER,
        crystal.PAPER,
        mediswift.PAPER,
        bilingual.PAPER,
        alibi_interpolation.PAPER,
        revbifpn.PAPER,
        granularity.PAPER,
        composition.PAPER,
    )
}
"""In the order of README's table, then the experiments of no single paper."""


def paper_named(name: str) -> Paper:
    """Return the paper of that name. Raises UserError that names the nearest one."""
    if name not in PAPERS:
        hint = nearest(name, PAPERS)
        raise UserError(
            f"{name!r} is no paper that can be reproduced"
            + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=PAPERS,
        )
    return PAPERS[name]
