"""The parameter rows of any module whose parts declare ``parameter_roles``."""

from collections.abc import Iterator

from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRoles, ParameterRow


def module_rows(module: nn.Module) -> tuple[ParameterRow, ...]:
    """One row for each parameter of ``module``, tied tensors once, in ``named_parameters`` order.

    A part declares the roles of its own parameters in ``parameter_roles`` (local name -> role);
    every part below one with a true ``is_residual_block`` counts as in a block. Raises UserError
    that names a parameter without a role.
    """
    roles, in_block = {}, {}
    for prefix, part, inside in _walk(module, "", False):
        declared: ParameterRoles = getattr(part, "parameter_roles", {})
        for local_name, _ in part.named_parameters(recurse=False, remove_duplicate=False):
            in_block[prefix + local_name] = inside
            if local_name in declared:
                roles[prefix + local_name] = declared[local_name]
    rows = []
    for name, parameter in module.named_parameters():
        if name not in roles:
            raise UserError(
                f"the parameter {name} belongs to no role",
                do="declare it in parameter_roles of the module that owns it",
            )
        role = roles[name]
        rows.append(
            ParameterRow(
                name=name,
                role=role.role,
                shape=tuple(parameter.shape),
                fan_in=role.fan_in,
                in_block=in_block[name],
                writes_residual=role.writes_residual,
                initial_mean=role.initial_mean,
            )
        )
    return tuple(rows)


def _walk(module: nn.Module, prefix: str, inside: bool) -> Iterator[tuple[str, nn.Module, bool]]:
    inside = inside or bool(getattr(module, "is_residual_block", False))
    yield prefix, module, inside
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", inside)
