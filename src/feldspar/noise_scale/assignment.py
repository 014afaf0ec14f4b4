"""Choose a rule for each module, and list the parameters that are not measured.

A rule that reimplements a forward pass is used only if the module has exactly this forward
function, or if its class names the equivalent torch class in ``computes_as``. All other modules run
one example at a time.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from feldspar.core.errors import UserError
from feldspar.noise_scale.all_layers.embedding import EmbeddingRule
from feldspar.noise_scale.all_layers.example_loop import ExampleLoopRule
from feldspar.noise_scale.all_layers.linear import LinearRule, TransposedLinearRule
from feldspar.noise_scale.all_layers.observed_head import HeadObserver, declared_observers
from feldspar.noise_scale.norms.norm_layers import LayerNormRule, RMSNormRule
from feldspar.noise_scale.parameter_types import ParameterType, parameter_type
from feldspar.noise_scale.recorder import Recorder
from feldspar.noise_scale.refusals import refuse_embedding
from feldspar.noise_scale.rule import Rule
from feldspar.noise_scale.uses import ParameterUses

Coverage = Callable[[str, nn.Module], bool]


@dataclass
class Assignment:
    """Rules by module, observed heads, and uses by parameter name."""

    recorder: Recorder
    rules: list[tuple[nn.Module, Rule]] = field(default_factory=list)
    heads: list[HeadObserver] = field(default_factory=list)
    uses: dict[str, ParameterUses] = field(default_factory=dict)
    types: dict[str, ParameterType | None] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    """Trained parameters that are not measured, and frozen parameters."""


def assign(
    model: nn.Module,
    covers: Coverage,
    masks: Mapping[str, Tensor],
    shared: Collection[str] | None = None,
) -> Assignment:
    """Return a rule for each trained module for which ``covers`` (name, module) is true.

    ``shared`` names the embeddings whose ids are the same for all examples. Raises UserError for an
    embedding that cannot be measured, for a name in ``shared`` that fits none, and for a forward
    pass that was already replaced.
    """
    _require_embeddings(model, shared or ())
    found = Assignment(Recorder())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owners: dict[str, tuple[str, nn.Module, str]] = {}
    for module_name, module in model.named_modules():
        for local_name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(names[id(parameter)], (module_name, module, local_name))

    def uses_of(parameter: Tensor) -> ParameterUses:
        name = names[id(parameter)]
        if name not in found.uses:
            module_name, module, local_name = owners[name]
            found.uses[name] = ParameterUses(
                name, module, local_name, _mask(masks, name, parameter)
            )
            found.types[name] = parameter_type(module_name, module, local_name)
        return found.uses[name]

    for name, module, rule_type in _measured(model, "", covers, set()):
        _require_own_forward(name, module)
        below = rule_type is ExampleLoopRule
        uses = {
            local_name: uses_of(parameter)
            for local_name, parameter in module.named_parameters(recurse=below)
            if parameter.requires_grad
        }
        rule = rule_type(name or type(module).__name__, type(module).forward, uses, found.recorder)
        if isinstance(rule, EmbeddingRule) and shared is not None:
            rule.shared = any(fnmatchcase(name, pattern) for pattern in shared)
        found.rules.append((module, rule))
    for name, module in model.named_modules():
        for attribute, parameter in declared_observers(module):
            if parameter.requires_grad and names[id(parameter)] in found.uses:
                head = HeadObserver(name, module, attribute, uses_of(parameter), found.recorder)
                found.heads.append(head)
    found.excluded = [name for name, _ in model.named_parameters() if name not in found.uses]
    return found


def _measured(
    module: nn.Module, name: str, covers: Coverage, seen: set[int]
) -> Iterator[tuple[str, nn.Module, type[Rule]]]:
    """Yield each covered module that has trained parameters of its own, with its rule."""
    trains = any(parameter.requires_grad for parameter in module.parameters())
    if id(module) in seen or not trains:
        return
    seen.add(id(module))
    own = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    if (own or is_parametrized(module)) and covers(name, module):
        rule_type = _rule_type(name, module)
        yield name, module, rule_type
        if rule_type is ExampleLoopRule:
            return
    for child_name, child in module.named_children():
        yield from _measured(child, f"{name}.{child_name}" if name else child_name, covers, seen)


def _rule_type(name: str, module: nn.Module) -> type[Rule]:
    kind = type(module)
    # Only the class's own declaration counts, because a subclass may compute something else.
    forward = vars(kind).get("computes_as", kind).forward
    if isinstance(module, nn.Embedding):
        refuse_embedding(name, module)
    own = {name for name, _ in module.named_parameters(recurse=False)}
    if is_parametrized(module) or not own <= {"weight", "bias"}:
        return ExampleLoopRule
    if forward is nn.Linear.forward:
        return LinearRule
    if (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D"):
        return TransposedLinearRule
    if forward is nn.Embedding.forward:
        return EmbeddingRule
    if forward is nn.LayerNorm.forward:
        return LayerNormRule
    if forward is nn.RMSNorm.forward:
        return RMSNormRule
    return ExampleLoopRule


def _require_embeddings(model: nn.Module, patterns: Collection[str]) -> None:
    """Raise UserError for a pattern that fits no embedding's name."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"shared: the model has no embedding {pattern!r}",
                allowed=names or "remove the names: the model has no nn.Embedding",
            )


def _require_own_forward(name: str, module: nn.Module) -> None:
    if "forward" in module.__dict__:
        raise UserError(
            f"the forward pass of {name or 'the model'} was already replaced",
            do="call remove() of the tracker that instrumented it, or unwrap the model first",
        )


def _mask(masks: Mapping[str, Tensor], name: str, parameter: Tensor) -> Tensor | None:
    mask = masks.get(name)
    if mask is not None and mask.shape != parameter.shape:
        raise UserError(
            f"the mask of {name} has a different shape than the parameter",
            found=tuple(mask.shape),
            allowed=str(tuple(parameter.shape)),
        )
    return mask
