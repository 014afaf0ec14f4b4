"""Everything without a rule of its own: the module runs on one example at a time.

Each run reads its parameters through an identity whose backward pass sees the gradient of that run
alone, which is c_i whatever happens inside, several uses of a parameter included. It is the naive
way, exact for any module that treats examples apart, and costs B calls; so a layer type that
matters should get a rule.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from feldspar.core.errors import UserError
from feldspar.noise_scale.expansion import Inside
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.rule import Forward, Rule

CHECK_TOLERANCE = 1e-2
"""Of the output's norm: rounding differs between one example and many, mixing them shows."""


class ExampleLoopRule(Rule):
    """A module with all that lies below it; ``uses`` are by name within the module.

    Tensors whose first dimension is the number of examples are taken apart, other arguments are
    the same for each. The first run is checked against the module on the whole batch.
    """

    takes_one_tensor = False
    _checked = False

    def forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The module's output, put together from those of single examples."""
        n_examples = self._count(args, kwargs)
        if not self._checked:
            self._checked = True
            self._check(module, n_examples, args, kwargs)
        parameters = {name: self.use(module, name, "example") for name in self.uses}
        tapped = [
            {
                f"inner.{name}": _Tap.apply(parameter, self, name, example)
                for name, parameter in parameters.items()
            }
            for example in range(n_examples)
        ]
        return self._run(module, self.plain, n_examples, tapped, args, kwargs)

    def tell_example(self, name: str, example: int, gradient: Tensor) -> None:
        """The gradient c_i of one example."""
        uses = self.uses[name]
        self.tell(name, gradient)
        gradient = widened(gradient)
        if uses.is_shared:
            zero = torch.zeros((), device=gradient.device)
            uses.defer(lambda other: gradient if other == example else zero)
        else:
            masked = gradient if uses.mask is None else gradient * uses.mask
            uses.add_example(example, masked.square().sum())

    def _count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        if not tensors or tensors[0].dim() == 0:
            raise UserError(
                f"{self.name} ({', '.join(self.uses)}) gets no batch to take apart",
                do="leave it out by a callable coverage",
            )
        known = self.recorder.n_examples
        sizes = [len(tensor) for tensor in tensors if tensor.dim()]
        self.recorder.observe(self.name, known if known in sizes and known else sizes[0])
        return cast(int, self.recorder.n_examples)

    def _run(
        self,
        module: nn.Module,
        plain: Forward,
        n_examples: int,
        parameters: list[dict[str, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        inside = Inside(module, plain)
        outputs = []
        for example in range(n_examples):

            def one(leaf: Any, example: int = example) -> Any:
                apart = isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == n_examples
                return leaf[example : example + 1] if apart else leaf

            own_args, own_kwargs = tree_map(one, args), tree_map(one, kwargs)
            outputs.append(functional_call(inside, parameters[example], own_args, own_kwargs))
        leaves, structure = zip(*(tree_flatten(output) for output in outputs), strict=True)
        joined = [self._join(parts) for parts in zip(*leaves, strict=True)]
        return tree_unflatten(joined, structure[0])

    def _join(self, parts: tuple[Any, ...]) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        if any(part.dim() == 0 or len(part) != 1 for part in parts):
            raise UserError(
                f"{self.name} does not return one entry for each example",
                do="have it return per-example values, or leave it out by a callable coverage",
            )
        return torch.cat(parts)

    @torch.no_grad()
    def _check(
        self, module: nn.Module, n_examples: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Raise UserError unless examples taken apart give what the whole batch gives."""
        training = [part for part in module.modules() if part.training]
        for part in training:
            part.training = False  # chance would differ
        try:
            whole = self.plain(module, *args, **kwargs)
            apart = self._run(module, self.plain, n_examples, [{}] * n_examples, args, kwargs)
        except UserError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.name} does not run on one example at a time",
                found=error,
                do="leave it out by a callable coverage",
            ) from error
        finally:
            for part in training:
                part.training = True
        for one, other in zip(tree_flatten(apart)[0], tree_flatten(whole)[0], strict=True):
            if isinstance(one, Tensor) and one.is_floating_point():
                same = one.shape == other.shape
                if not same or (one - other).norm() > CHECK_TOLERANCE * other.norm():
                    raise UserError(
                        f"{self.name} mixes the examples of a batch, or has it in another than "
                        "the first dimension",
                        do="leave it out by a callable coverage",
                    )


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parameter: Tensor, rule: ExampleLoopRule, name: str, example: int
    ) -> Tensor:
        ctx.rule, ctx.name, ctx.example = rule, name, example
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.rule.tell_example(ctx.name, ctx.example, grads[0])
        return grads[0], None, None, None
