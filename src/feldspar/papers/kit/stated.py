"""A paper's claims as its ``claims.yaml`` states them, and their verdicts by measured figures.

Statement, paper's figure, tolerance, limits and the readings of both outcomes are fixed in the file
before a run; an experiment adds its own figures only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.papers.kit.claims import NOT_RUN, Claim, Verdict, unrecorded, without_verdict
from feldspar.papers.kit.gain import Gain
from feldspar.recipe.base import Settings
from feldspar.recipe.yaml import read_yaml

CLAIMS_FILE = "claims.yaml"


class EarlierFigure(Settings):
    """The figure of an earlier experiment on a claim, which a better one replaced."""

    figure: str
    """The earlier figure with its interval, and the verdict on it."""
    why: str
    """The reason why that experiment could not show the claim."""


class StatedClaim(Settings):
    """One claim of a paper, written down before any run.

    Words in braces are filled in: a limit by its name, and the values that the experiment gives.
    """

    id: str
    """The name of the claim."""
    statement: str
    """The claim in a sentence."""
    paper: str
    """The paper's own figure."""
    source: str
    """The place of the figure: a table, figure or section of the paper, or another text."""
    cost: str = ""
    """The runs that show the claim at the paper's scale: the name of a stage, or a recipe."""
    limits: dict[str, float] = {}
    """Thresholds of the tolerance, by name."""
    tolerance: str = ""
    """The condition in words under which the claim holds."""
    held: str = ""
    """The reading of a claim that held: its cause."""
    failed: str = ""
    """The reading of a claim that failed: the likeliest cause."""
    more_readings: dict[str, str] = {}
    """Readings of special outcomes, by name; one of them replaces ``held`` or ``failed``."""
    same_quantity: Literal["always", "at paper scale", "never"] = "never"
    """When the experiment measures the paper's own quantity, so that it can be reproduced."""
    counted: bool = False
    """The figure is counted or computed, so that no seed moves it."""
    not_run: str = ""
    """The reason why the claim is not run here."""
    earlier: EarlierFigure | None = None
    """The experiment that this one replaced, where there was one."""
    weakness: str = ""
    """The reason why this experiment can hardly show the claim, where no better one replaced it."""

    @model_validator(mode="after")
    def _is_judged_or_not_run(self) -> "StatedClaim":
        if self.earlier and self.weakness:
            raise ValueError(f"{self.id}: earlier.why says what weakness would; leave weakness out")
        judged = (self.tolerance, self.held, self.failed)
        if self.not_run and (any(judged) or not self.cost):
            raise ValueError(f"{self.id}: a claim that is not run has a cost and no tolerance")
        if not self.not_run and not all(judged):
            raise ValueError(f"{self.id}: tolerance, held and failed are needed, or not_run")
        return self


class PaperClaims(Settings):
    """The file ``claims.yaml`` of a paper."""

    title: str
    """The paper's subject in a few words."""
    arxiv: str
    """The paper's number on arXiv."""
    designs: dict[Literal["small", "open"], Annotated[int, Field(ge=1)]] = {}
    """The number of an experiment's design, by scale, raised where figures of the design before
    say nothing of this one; 1 where it is not given."""
    notes: tuple[str, ...] = ()
    """Remarks on how the small experiment came about, which a reader of its claims has to know."""
    claims: tuple[StatedClaim, ...]
    """The claims in the order of the report."""

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "PaperClaims":
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two claims have one id: {ids}")
        return self


def read_claims(folder: Path) -> PaperClaims:
    """Read ``claims.yaml`` of a paper's folder.

    Raises UserError for a file that is no YAML, ValidationError for one of another form.
    """
    value, _ = read_yaml(folder / CLAIMS_FILE)
    return PaperClaims.model_validate(value)


@dataclass(frozen=True)
class StatedClaims:
    """The claims of a paper, ready to be judged by the figures of an experiment of one scale."""

    file: PaperClaims
    at_paper_scale: bool
    cost_of: Callable[[str], str]
    """The cost in words of the runs that ``StatedClaim.cost`` names."""

    def limit(self, claim: str, name: str) -> float:
        """Return a threshold of a claim."""
        return self._stated(claim).limits[name]

    def judged(
        self,
        claim: str,
        ours: str,
        *,
        held: bool,
        reading: str = "",
        near_figure: bool = True,
        short: str = "",
        **values: object,
    ) -> Claim:
        """Return a claim with its verdict; ``held`` says that ``ours`` meets the tolerance.

        Only the paper's own quantity can be reproduced, and only by a figure near the paper's
        (``near_figure``); of another quantity the mechanism is shown. ``reading`` names one of the
        claim's ``more_readings``. ``short`` is ``ours`` in a clause or two, where it is long.
        ``values`` fill the words in braces.
        """
        own = self._stated(claim)
        words = {**own.limits, **values}
        text = own.more_readings[reading] if reading else own.held if held else own.failed
        is_same = own.same_quantity == "always" or (
            own.same_quantity == "at paper scale" and self.at_paper_scale
        )
        shown = Verdict.REPRODUCED if is_same and near_figure else Verdict.MECHANISM_SHOWN
        return Claim(
            name=claim,
            statement=own.statement,
            paper=figure_of(own),
            ours=ours,
            verdict=shown if held else Verdict.NOT_BORNE_OUT,
            tolerance=own.tolerance.format(**words),
            reason=text.format(**words),
            borne_out=held,
            cost="" if held or not own.cost else self.cost_of(own.cost),
            counted=own.counted,
            short=short,
        )

    def lower(self, claim: str, ours: str, *gains: Gain, near_figure: bool = True) -> Claim:
        """Judge a claim that holds where each of ``gains`` exceeds the claim's limit ``noise``."""
        noise = self.limit(claim, "noise")
        held = all(gain.exceeds(noise) for gain in gains)
        return self.judged(claim, ours, held=held, near_figure=near_figure)

    def kept(self, claim: str, ours: str, gain: Gain) -> Claim:
        """Judge a claim that holds where a loss is higher by at most the claim's ``margin``."""
        return self.judged(claim, ours, held=gain.is_at_least(-self.limit(claim, "margin")))

    def near(self, claim: str, value: float) -> bool:
        """Return True for a value that lies as near the claim's ``figure`` as ``near`` says."""
        return abs(value - self.limit(claim, "figure")) <= self.limit(claim, "near")

    def all_claims(self, judged: tuple[Claim, ...], *, quick: bool) -> tuple[Claim, ...]:
        """Return ``judged`` and the claims that are not run, in the file's order.

        A quick run gives a verdict only on what is counted.
        """
        known = {claim.name: claim for claim in judged}
        found = []
        for own in self.file.claims:
            if own.not_run:
                found.append(self._not_run(own))
            elif own.id in known:
                found.append(without_verdict(known[own.id]) if quick else known[own.id])
        return tuple(found)

    def unrecorded(self, claim: str) -> Claim:
        """Stand in for a claim whose figures a record lacks."""
        own = self._stated(claim)
        return replace(unrecorded(own.id), statement=own.statement, paper=figure_of(own))

    def _not_run(self, own: StatedClaim) -> Claim:
        return Claim(
            name=own.id,
            statement=own.statement,
            paper=figure_of(own),
            ours=NOT_RUN,
            verdict=Verdict.NEEDS_SCALE,
            tolerance=NOT_RUN,
            reason=own.not_run,
            borne_out=None,
            cost=self.cost_of(own.cost),
        )

    def _stated(self, claim: str) -> StatedClaim:
        return next(own for own in self.file.claims if own.id == claim)


def figure_of(claim: StatedClaim) -> str:
    """Return the paper's figure with its source."""
    return f"{claim.paper} ({claim.source})"
