"""The last phase: application code with and without replay, against as many more tokens of phase 2.

All arms start from the weights of one run of phase 2, with the same rates.
"""

from collections.abc import Mapping
from statistics import fmean

from feldspar.papers.crystal.kinds import BOTH_KINDS, KINDS, LANGUAGE_KIND, KindBits
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.stated import StatedClaims

MORE, APPLICATION, ALONE = "more-code", "application", "application-alone"
LAST_PHASES = (MORE, APPLICATION, ALONE)
"""The arms by the recipe's choice of phase: more of phase 2, phase 3, phase 3 without replay."""


def no_gain_claim(ends: Mapping[str, KindBits], claims: StatedClaims) -> Claim:
    """Judge phase 3 against more of phase 2: the paper's negative result."""
    more, third = ends[MORE], ends[APPLICATION]
    gains = {kind: Gain.of(more[kind], third[kind]) for kind in (BOTH_KINDS, *KINDS)}
    told = "; ".join(
        f"{kind} {fmean(more[kind]):.4f}, {fmean(third[kind]):.4f} ({gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    mean = gains[BOTH_KINDS]
    return claims.kept(
        "last-phase-brings-nothing",
        f"after more of phase 2 and after phase 3: {told}{power(mean)}",
        mean,
    )


def replay_claim(before: KindBits, ends: Mapping[str, KindBits], claims: StatedClaims) -> Claim:
    """Judge language after phase 3, with and without replay; ``before`` is the end of phase 2."""
    begun, kept, bare = (own[LANGUAGE_KIND] for own in (before, ends[APPLICATION], ends[ALONE]))
    lost, saved = Gain.of(begun, bare), Gain.of(kept, bare)
    return claims.lower(
        "replay-keeps-language",
        f"language: {fmean(begun):.4f} before phase 3, {fmean(bare):.4f} after it without replay "
        f"({Gain.of(bare, begun).lower_or_higher}), {fmean(kept):.4f} with it "
        f"({saved.lower_or_higher} than without){power(saved)}",
        saved,
        lost,
    )
