"""Choose the shares of documents that are held out, by the number of documents."""

from collections.abc import Sequence
from dataclasses import dataclass

FEW, SHARE = 20, 0.05
"""Below so many documents one is held out and none is tested; the usual share."""
ENOUGH = 500
"""Documents that are enough to hold out, however many there are."""


@dataclass(frozen=True)
class HeldOut:
    """Shares of the documents for validation and test, as the recipe gives them."""

    validation: float
    test: float
    train_share: float
    """Share of the text that is left to train on."""
    why: str

    @property
    def any(self) -> bool:
        """Tell whether anything is held out."""
        return self.validation > 0


def hold_out(documents: Sequence[int]) -> HeldOut:
    """Return the shares for sources of so many ``documents`` each."""
    total, most = sum(documents), max(documents)
    if most < 3:
        why = "nothing is held out: a source needs 3 documents for that; split long files into more"
        return HeldOut(0.0, 0.0, 1.0, why)
    if total < FEW:
        held = sum(count >= 3 for count in documents)
        why = f"one document of each source with 3 or more is held out; there are {total} in all"
        return HeldOut(SHARE, 0.0, 1 - held / total, why)
    share = max(0.001, min(SHARE, round(ENOUGH / total, 3)))
    why = f"about {share * total:,.0f} documents to validate with while training, as many to test"
    return HeldOut(share, share, 1 - 2 * share, why)
