"""Parameter rows of any module whose parts declare ``parameter_roles``, and of a decoder."""

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, ParameterRole, ParameterRoles, ParameterRow, declared
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import add_low_rank
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings

Place = tuple[ParameterRole, bool]
"""A declared role, and whether it stands in a block."""


@lru_cache(maxsize=256)
def model_shapes(
    settings: ModelSettings, soft_prompt_length: int = 0, lora: LoraSettings | None = None
) -> ModelShapes:
    """Return the rows of the decoder that ``settings`` describe, and the sizes that they scale by.

    With ``lora`` its matrices are among them. The decoder is built on the meta device, without
    memory for its values. Raises UserError when ``vocab_size`` is not resolved, and where ``lora``
    does not fit the model.
    """
    with torch.device("meta"):
        decoder = Decoder(settings, soft_prompt_length)
        if lora is not None:
            add_low_rank(decoder, lora)
    return ModelShapes(
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        n_layers=settings.n_layers,
        head_dim=settings.head_width,
        rows=module_rows(decoder),
    )


def module_rows(module: nn.Module) -> tuple[ParameterRow, ...]:
    """Return a row for each parameter of ``module`` in ``named_parameters`` order; tied tensors
    once.

    A part declares the roles of its own parameters in ``parameter_roles`` (local name -> role);
    every part below one with a true ``is_residual_block`` counts as in a block. Of the parts that
    share a tensor one declares its role, or all the same. Raises UserError that names a parameter
    of no role or of two.
    """
    places = _places(module)
    rows = []
    for name, parameter in module.named_parameters():
        found = places[id(parameter)]
        if not found:
            raise UserError(
                f"the parameter {name} belongs to no role",
                do="declare it in parameter_roles of the module that owns it",
            )
        if len(found) > 1:
            raise UserError(
                f"the parameter {name} belongs to two roles",
                found=", ".join(f"{role.role} as {full}" for (role, _), full in found.items()),
                do="declare a shared tensor in one of its modules only",
            )
        [(role, in_block)] = found
        rows.append(
            ParameterRow(
                name=name,
                role=role.role,
                shape=tuple(parameter.shape),
                fan_in=role.fan_in,
                in_block=in_block,
                writes_residual=role.writes_residual,
                initial_mean=role.initial_mean,
                maskable=role.maskable,
            )
        )
    return tuple(rows)


def _places(module: nn.Module) -> dict[int, dict[Place, str]]:
    """Map a parameter's identity to its declared roles, each with the declaring name."""
    places: dict[int, dict[Place, str]] = defaultdict(dict)
    for prefix, part, inside in _walk(module, "", False):
        roles: ParameterRoles = declared(part, "parameter_roles")
        for name, parameter in part.named_parameters(recurse=False):
            if name in roles:
                places[id(parameter)].setdefault((roles[name], inside), prefix + name)
    return places


def _walk(module: nn.Module, prefix: str, inside: bool) -> Iterator[tuple[str, nn.Module, bool]]:
    inside = inside or bool(getattr(module, "is_residual_block", False))
    yield prefix, module, inside
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", inside)
