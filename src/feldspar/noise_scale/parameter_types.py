"""Find the type of a parameter: embedding, norm, attention, feed_forward or output.

Modules that declare ``parameter_roles`` give it themselves; for others it follows from the class
and the usual names. A parameter without a type counts only in the total. A matrix that is both
embedding and output is an embedding, so that the total counts it once.
"""

import re
from typing import Literal

from torch import nn

from feldspar.core.rows import ParameterRoles, Role, declared

ParameterType = Literal["norm", "attention", "feed_forward", "embedding", "output"]

_BY_ROLE: dict[Role, ParameterType] = {
    Role.NORM: "norm",
    Role.EMBEDDING: "embedding",
    Role.POSITION: "embedding",
    Role.OUTPUT: "output",
    Role.PROMPT: "embedding",
}
_NORM_CLASS = re.compile(r"norm(gated|\dd)?$")
_BY_NAME: dict[ParameterType, re.Pattern[str]] = {
    "attention": re.compile(r"attn|attention|[qkv]_proj|query_key_value"),
    "feed_forward": re.compile(r"mlp|ffn|feed_?forward|\bfc\d?\b|intermediate|experts"),
    "output": re.compile(r"\b(lm_head|head|output|embed_out|unembed|classifier|score)$"),
}


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation, by class or by the name of its class."""
    known = isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm)
    return known or _NORM_CLASS.search(type(module).__name__.lower()) is not None


def parameter_type(module_name: str, module: nn.Module, local_name: str) -> ParameterType | None:
    """Return the type of ``module``'s own parameter ``local_name``; None: it counts only in the
    total."""
    roles: ParameterRoles = declared(module, "parameter_roles")
    own = roles.get(local_name)
    if own is not None and own.role in _BY_ROLE:
        return _BY_ROLE[own.role]
    if is_norm(module):
        return "norm"
    if isinstance(module, nn.Embedding):
        return "embedding"
    name = module_name.lower()
    return next((kind for kind, pattern in _BY_NAME.items() if pattern.search(name)), None)
