"""What another model lends: a vector for each token that it knows, found by the token's string."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class Donor:
    """A model's two matrices (V, d) by the tensors' names, and its tokens' ids by their strings."""

    ids: Mapping[str, int]
    matrices: Mapping[str, Tensor]
    """``token_embedding.weight`` and, untied, ``output.weight``."""
    origin: str
    """For people: where it comes from."""

    def matrix(self, name: str) -> Tensor:
        """Return the donor's matrix of that name; its embedding where it is tied.

        Raises UserError when it holds NaN or infinity.
        """
        found = self.matrices.get(name, self.matrices["token_embedding.weight"])
        if not torch.isfinite(found).all():
            raise UserError(
                f"adapt.embeddings.donor: {self.origin} holds numbers that are not finite",
                where=name,
                do="choose another checkpoint of the donor",
            )
        return found


@dataclass(frozen=True)
class Known:
    """Tokens that the donor knows: their places in a list of pieces, and their donor ids."""

    places: Tensor
    ids: Tensor

    @classmethod
    def of(cls, pieces: Sequence[str], donor: Donor, nonzero: bool) -> "Known":
        """Those of ``pieces`` that ``donor`` knows, with ``nonzero`` only those with a vector that
        has a direction."""
        lengths = donor.matrix("token_embedding.weight").float().norm(dim=1).tolist()
        found = [
            (place, donor.ids[piece])
            for place, piece in enumerate(pieces)
            if piece in donor.ids and not (nonzero and lengths[donor.ids[piece]] == 0)
        ]
        places, ids = zip(*found, strict=True) if found else ((), ())
        return cls(torch.tensor(places, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64))
