"""Read the vectors of tokens from a donor model; tokens are found by their strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class Donor:
    """Matrices (V, d) of a model by tensor name, and the ids of its tokens by string."""

    ids: Mapping[str, int]
    matrices: Mapping[str, Tensor]
    """``token_embedding.weight`` and, if untied, ``output.weight``."""
    origin: str
    """Origin of the donor, for people."""

    def matrix(self, name: str) -> Tensor:
        """Return the donor's matrix of that name, or its embedding if it is tied.

        Raises UserError if it contains NaN or infinity.
        """
        found = self.matrices.get(name, self.matrices["token_embedding.weight"])
        if not torch.isfinite(found).all():
            raise UserError(
                f"adapt.embeddings.donor: {self.origin} contains numbers that are not finite",
                where=name,
                do="choose another checkpoint of the donor",
            )
        return found


@dataclass(frozen=True)
class KnownTokens:
    """Tokens that the donor has: their places in a list of tokens, and their ids in the donor."""

    places: Tensor
    ids: Tensor

    @classmethod
    def of(cls, pieces: Sequence[str], donor: Donor, nonzero: bool) -> "KnownTokens":
        """Return those of ``pieces`` that ``donor`` has; with ``nonzero`` only those with a nonzero
        vector."""
        lengths = donor.matrix("token_embedding.weight").float().norm(dim=1).tolist()
        found = [
            (place, donor.ids[piece])
            for place, piece in enumerate(pieces)
            if piece in donor.ids and not (nonzero and lengths[donor.ids[piece]] == 0)
        ]
        places, ids = zip(*found, strict=True) if found else ((), ())
        return cls(torch.tensor(places, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64))
