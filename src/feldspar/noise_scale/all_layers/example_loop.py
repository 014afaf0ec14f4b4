"""Measure modules without a rule of their own: run them on one example at a time.

Each run reads its parameters through an identity function whose backward pass receives the gradient
of this run alone. This gradient is c_i, whatever happens inside, even if a parameter is used
several times. The method is exact for any module that treats examples separately, but it costs B
calls, so frequent layer types should get a rule.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from feldspar.core.errors import FeldsparError, UserError
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.recorder import Recorder
from feldspar.noise_scale.rule import Forward, Rule
from feldspar.noise_scale.uses import ParameterUses

HasExampleDimension = tuple[bool, ...]
"""For each argument, True if it has one entry for each example."""

CHECK_TOLERANCE = 1e-2
"""Tolerance relative to the output's norm: rounding is below it, and mixing of examples is above
it."""


class ExampleLoopRule(Rule):
    """Measure a module with all modules inside it; ``uses`` are named within the module.

    In the first run with several examples, tensors that are as long as the batch are split by
    example, and other arguments are the same for each. This run is compared with the module on the
    whole batch. Later runs split the same arguments, whatever their lengths.
    """

    takes_one_tensor = False

    def __init__(
        self, name: str, plain: Forward, uses: Mapping[str, ParameterUses], recorder: Recorder
    ) -> None:
        super().__init__(name, plain, uses, recorder)
        self._apart: dict[Any, HasExampleDimension] = {}
        """By structure and ranks of the arguments."""

    def forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output, assembled from those of single examples."""
        n_examples = self._count(args, kwargs)
        apart = self._taken_apart(module, n_examples, args, kwargs)
        parameters = {name: self.use(module, name, "example") for name in self.uses}
        tapped = [
            {
                f"inner.{name}": _Tap.apply(parameter, self, name, example)
                for name, parameter in parameters.items()
            }
            for example in range(n_examples)
        ]
        return self._run(module, apart, tapped, args, kwargs)

    def report_example(self, name: str, example: int, gradient: Tensor) -> None:
        """Take the gradient c_i of one example."""
        uses = self.uses[name]
        self.report_gradient(name, gradient)
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
                f"{self.name} ({', '.join(self.uses)}): no tensor argument has a batch dimension",
                do="exclude it with coverage=lambda name, module: ...",
            )
        known = self.recorder.n_examples
        sizes = [len(tensor) for tensor in tensors if tensor.dim()]
        self.recorder.observe(self.name, known if known in sizes and known else sizes[0])
        return cast(int, self.recorder.n_examples)

    def _taken_apart(
        self, module: nn.Module, n_examples: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HasExampleDimension:
        """Return for each argument whether it has one entry for each example, as in the checked
        run.

        Raises UserError for an argument that no longer has one entry for each example.
        """
        leaves, structure = tree_flatten((args, kwargs))
        ranks = tuple(leaf.dim() if isinstance(leaf, Tensor) else None for leaf in leaves)
        fits = tuple(
            bool(rank) and len(leaf) == n_examples for rank, leaf in zip(ranks, leaves, strict=True)
        )
        if n_examples == 1:
            return fits  # one example alone is the whole batch
        key = (repr(structure), ranks)
        if key not in self._apart:
            self._check(module, n_examples, fits, args, kwargs)
            self._apart[key] = fits
        apart = self._apart[key]
        for leaf, wanted, has in zip(leaves, apart, fits, strict=True):
            if wanted and not has:
                raise UserError(
                    f"{self.name} got an argument of {len(leaf)} entries, which had one "
                    f"for each example before; now there are {n_examples} examples",
                    do="measure it first with a number of examples that differs from all "
                    "other lengths, or exclude it with coverage=lambda name, module: "
                    "...",
                )
        return apart

    def _run(
        self,
        module: nn.Module,
        apart: HasExampleDimension,
        parameters: list[dict[str, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the module once for each of ``parameters``, with one example each."""
        inside = _Inside(module, self.plain)
        leaves, structure = tree_flatten((args, kwargs))
        outputs = []
        for example, own in enumerate(parameters):
            row = slice(example, example + 1)
            one = [leaf[row] if of else leaf for leaf, of in zip(leaves, apart, strict=True)]
            own_args, own_kwargs = tree_unflatten(one, structure)
            outputs.append(functional_call(inside, own, own_args, own_kwargs))
        found, structures = zip(*(tree_flatten(output) for output in outputs), strict=True)
        joined = [self._join(parts) for parts in zip(*found, strict=True)]
        return tree_unflatten(joined, structures[0])

    def _join(self, parts: tuple[Any, ...]) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        if any(part.dim() == 0 or len(part) != 1 for part in parts):
            raise UserError(
                f"{self.name} does not return one entry for each example",
                do="let it return one value for each example, or exclude it with "
                "coverage=lambda name, module: ...",
            )
        return torch.cat(parts)

    @torch.no_grad()
    def _check(
        self,
        module: nn.Module,
        n_examples: int,
        apart: HasExampleDimension,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Raise UserError unless single examples give the same results as the whole batch."""
        training = [part for part in module.modules() if part.training]
        for part in training:
            part.training = False  # random draws would differ
        try:
            whole = self.plain(module, *args, **kwargs)
            joined = self._run(module, apart, [{}] * n_examples, args, kwargs)
        except FeldsparError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.name} does not run on one example at a time",
                found=error,
                do="exclude it with coverage=lambda name, module: ...",
            ) from error
        finally:
            for part in training:
                part.training = True
        for one, other in zip(tree_flatten(joined)[0], tree_flatten(whole)[0], strict=True):
            if isinstance(one, Tensor) and one.is_floating_point():
                same = one.shape == other.shape
                if not same or (one - other).norm() > CHECK_TOLERANCE * other.norm():
                    raise UserError(
                        f"{self.name} mixes the examples of a batch, has the batch in "
                        "another dimension than the first, or got another argument as "
                        "long as the batch",
                        do="exclude it with coverage=lambda name, module: ...",
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
        ctx.rule.report_example(ctx.name, ctx.example, grads[0])
        return grads[0], None, None, None


class _Inside(nn.Module):
    """Run ``inner`` by its own forward function, so that its parameters can be replaced."""

    def __init__(self, inner: nn.Module, plain: Any) -> None:
        super().__init__()
        self.inner = inner
        self._plain = plain

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of ``inner``."""
        return self._plain(self.inner, *args, **kwargs)
