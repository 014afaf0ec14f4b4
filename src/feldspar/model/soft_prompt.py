"""Learned vectors among the tokens of a sequence (MediSwift, 2403.00952; BioGPT's scheme).

A vector is written into a sequence as a token id beyond the vocabulary. Positions, attention and
caches then treat it as they treat any token, wherever it stands; only its embedding is its own, and
the head, which has no row for it, never predicts it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.rows import ParameterRole, ParameterRoles, Role

SOFT_PROMPT = "soft_prompt.weight"
"""The name of the table of learned vectors in a decoder."""


class SoftPrompt(nn.Module):
    """A table of ``length`` vectors, left uninitialised; vector i has the id ``first_id`` + i."""

    parameter_roles: ParameterRoles = {"weight": ParameterRole(Role.PROMPT)}

    def __init__(self, length: int, d_model: int, first_id: int) -> None:
        super().__init__()
        self.first_id = first_id
        self.weight = nn.Parameter(torch.empty(length, d_model))

    def forward(self, tokens: Tensor, table: nn.Module) -> Tensor:
        """Embeddings (b, t, d): those of ``table`` for tokens (b, t), our own for our ids."""
        own = tokens >= self.first_id
        vectors = F.embedding((tokens - self.first_id).clamp_(min=0), self.weight)
        return torch.where(own.unsqueeze(-1), vectors, table(tokens.masked_fill(own, 0)))
