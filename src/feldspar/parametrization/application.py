"""Apply a parametrization table to a module: initial values, forward multipliers, optimizer
groups."""

from collections import defaultdict
from dataclasses import asdict, dataclass

import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import declared
from feldspar.core.streams import stream_seed
from feldspar.parametrization.tables import ForwardMultipliers, ParametrizationTable, TensorEntry
from feldspar.recipe.sections.optimizer import UpdateRule

TRUNCATION = 2.0


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one update rule with the same multipliers of the base hyper-parameters."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    learning_rate_multiplier: float
    weight_decay_multiplier: float
    epsilon_multiplier: float
    rule: UpdateRule


def apply(model: nn.Module, table: ParametrizationTable, seed: int = 0) -> list[ParameterGroup]:
    """Initialise all parameters, set the forward multipliers, and return the optimizer's groups.

    Each tensor has its own random stream (seed and name), so its initial values do not depend on
    other tensors. A multiplier that no module declares is left to the caller. Raises UserError
    unless the table's tensors are the model's.
    """
    initialise(model, table, seed)
    set_forward_multipliers(model, table.forward)
    return parameter_groups(model, table)


@torch.no_grad()
def initialise(model: nn.Module, table: ParametrizationTable, seed: int) -> None:
    """Draw the initial values of all parameters on the CPU, whatever the model's device."""
    entries = entries_by_name(model, table)
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_values(entries[name], table.init, seed).to(parameter.dtype))


def initial_values(entry: TensorEntry, distribution: str, seed: int) -> torch.Tensor:
    """Return the initial values of one tensor in float32."""
    values = torch.full(entry.shape, entry.initial_mean)
    if entry.init_std == 0.0:
        return values
    generator = torch.Generator().manual_seed(stream_seed(seed, "model.init", entry.name))
    if distribution == "truncated_normal":
        bound = TRUNCATION * entry.init_std
        return nn.init.trunc_normal_(
            values,
            entry.initial_mean,
            entry.init_std,
            entry.initial_mean - bound,
            entry.initial_mean + bound,
            generator=generator,
        )
    return values.normal_(entry.initial_mean, entry.init_std, generator=generator)


def set_forward_multipliers(model: nn.Module, forward: ForwardMultipliers) -> None:
    """Set the multipliers on the modules that declare them.

    A module's ``forward_multipliers`` maps its attribute to the multiplier for it: embedding,
    residual, attention or output. Raises UserError for any other.
    """
    values = asdict(forward)
    for module in model.modules():
        for attribute, kind in declared(module, "forward_multipliers").items():
            if kind not in values:
                raise UserError(
                    f"{type(module).__name__}.forward_multipliers: unknown multiplier {kind!r}",
                    allowed=list(values),
                )
            setattr(module, attribute, values[kind])


def parameter_groups(model: nn.Module, table: ParametrizationTable) -> list[ParameterGroup]:
    """Group the trained parameters by multipliers and update rule, in the model's order."""
    entries = entries_by_name(model, table)
    grouped: dict[tuple[float, float, float, UpdateRule], list[tuple[str, nn.Parameter]]]
    grouped = defaultdict(list)
    for name, parameter in model.named_parameters():
        entry = entries[name]
        key = (
            entry.learning_rate_multiplier,
            entry.weight_decay_multiplier,
            entry.epsilon_multiplier,
            entry.rule,
        )
        if parameter.requires_grad:
            grouped[key].append((name, parameter))
    return [
        ParameterGroup(
            tuple(name for name, _ in members), tuple(value for _, value in members), *key
        )
        for key, members in grouped.items()
    ]


def entries_by_name(model: nn.Module, table: ParametrizationTable) -> dict[str, TensorEntry]:
    """Return the table's entries. Raises UserError unless its tensors are the model's."""
    entries = {entry.name: entry for entry in table.tensors}
    parameters = dict(model.named_parameters())
    absent = next((name for name in entries if name not in parameters), None)
    if absent is not None:
        raise UserError(
            f"the parametrization table has a row for {absent}, which the model does not have"
        )
    for name, parameter in parameters.items():
        if name in entries and entries[name].shape != tuple(parameter.shape):
            raise UserError(
                f"the parameter {name} has a different shape in the parametrization table",
                found=tuple(parameter.shape),
                allowed=str(entries[name].shape),
            )
        if name not in entries:
            raise UserError(
                f"the parameter {name} has no row in the parametrization table",
                do="declare its role in the module's parameter_roles",
            )
    return entries
