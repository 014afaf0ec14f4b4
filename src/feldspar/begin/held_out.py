"""Choose the shares of documents that are held out, by the number of documents."""

from collections.abc import Sequence
from dataclasses import dataclass

FEW, SHARE = 20, 0.05
"""Below so many documents single ones are held out; the usual share."""
LEAST, LEAST_FOR_TEST = 3, 5
"""Documents of a source from which on one validates the training, and one more is tested."""
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
    if most < LEAST:
        why = "nothing is held out: a source needs 3 documents for that, or a long text file"
        return HeldOut(0.0, 0.0, 1.0, why)
    if total < FEW:
        test = SHARE if most >= LEAST_FOR_TEST else 0.0
        held = sum(count >= LEAST for count in documents) * (2 if test else 1)
        each = "one document validates the training" + (", one is for the test" if test else "")
        why = f"{each}, of each source with {LEAST} or more; there are {total} in all"
        return HeldOut(SHARE, test, max(0.3, 1 - held / total), why)
    share = max(0.001, min(SHARE, round(ENOUGH / total, 3)))
    why = f"about {share * total:,.0f} documents to validate with while training, as many to test"
    return HeldOut(share, share, 1 - 2 * share, why)
