"""What all instrumented layers of a model share while a micro-batch is recorded."""

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.uses import ParameterUses

TOLERANCE = 1e-4
"""Of a gradient's norm: what sums in float32 may differ by."""
LOW_PRECISION_TOLERANCE = 2e-2
"""The same where parameters are bfloat16 or float16 in their layers (FSDP2's mixed precision)."""


class Recorder:
    """Whether layers record, how many examples the micro-batch has, and where gradients come from.

    The first micro-batch is audited: the gradient that reaches a parameter must be the sum of what
    its instrumented uses sent, or norms would be those of a part of it.
    """

    def __init__(self) -> None:
        self.active = False
        self.n_examples: int | None = None
        self._n_positions: int | None = None
        self._has_observed = False
        self._audited = False
        self._hooks: dict[int, torch.utils.hooks.RemovableHandle] = {}
        self._told: dict[str, Tensor] = {}
        self._arrived: dict[str, tuple[Tensor, Tensor]] = {}
        """The sum of random forms, and how far off it may be."""

    def begin(self, n_examples: int | None = None) -> None:
        """Begin a micro-batch of so many examples; None: the first layer tells."""
        self.active = True
        self.n_examples, self._n_positions = n_examples, None
        self._has_observed = False

    def end(self) -> None:
        """The micro-batch is over, well or not."""
        self.active = False
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._told.clear()
        self._arrived.clear()

    def observe(self, layer: str, n_examples: int, n_positions: int | None = None) -> None:
        """A layer sees so many examples, each of so many positions where it has some.

        Raises UserError unless all layers see the same number of examples.
        """
        if self.n_examples is None:
            self.n_examples = n_examples
        if not self._has_observed:
            self._n_positions = n_positions
        self._has_observed = True
        if self.n_examples != n_examples:
            raise UserError(
                f"{layer} got {n_examples} examples in its first dimension, the layers before it "
                f"{self.n_examples}",
                do="give every layer the batch in its first dimension; name embeddings whose ids "
                "are the same for all examples in instrument(shared=[...]); leave out by a "
                "callable coverage layers that see no examples (routed experts, packed sequences)",
            )

    def unflattened(self, x: Tensor) -> Tensor:
        """Return a layer's input (B T, d), all positions of all examples in a row, as (B, T, d)."""
        if torch.compiler.is_compiling() or x.dim() != 2:
            return x
        if self.n_examples is None or self._n_positions is None:
            return x
        flat = len(x) == self.n_examples * self._n_positions and self._n_positions > 1
        return x.unflatten(0, (self.n_examples, self._n_positions)) if flat else x

    def watch(self, uses: ParameterUses, parameter: Tensor) -> None:
        """Note what gradient will arrive at a parameter, in the first micro-batch only."""
        if self._audited or not parameter.requires_grad or id(parameter) in self._hooks:
            return

        def arrive(gradient: Tensor) -> None:
            exact = gradient.dtype in (torch.float32, torch.float64)
            tolerance = TOLERANCE if exact else LOW_PRECISION_TOLERANCE
            form, slack = _random_form(gradient), tolerance * gradient.norm().double()
            if uses.name in self._arrived:
                form, slack = (
                    form + self._arrived[uses.name][0],
                    slack + self._arrived[uses.name][1],
                )
            self._arrived[uses.name] = (form, slack)

        self._hooks[id(parameter)] = parameter.register_hook(arrive)

    def tell(self, uses: ParameterUses, gradient: Tensor) -> None:
        """A use sends this gradient to its parameter."""
        if not self._audited:
            form = _random_form(gradient)
            before = self._told.get(uses.name)
            self._told[uses.name] = form if before is None else before + form

    def audit(self) -> None:
        """Raise UserError for a parameter that gets gradient from elsewhere."""
        self._audited = True
        for name, (arrived, slack) in self._arrived.items():
            told = self._told.get(name, torch.zeros_like(arrived))
            # Written so that a gradient that is not finite passes: the statistics will say so.
            if bool((arrived - told).abs() > slack):
                raise UserError(
                    f"{name} gets gradient from outside of its module's forward pass",
                    do="call the module instead of using its parameter, or leave it out by a "
                    "callable coverage",
                )


def _random_form(gradient: Tensor) -> Tensor:
    """Return a fixed random linear form of the gradient, as large as its norm on average, float64
    ().
    """
    rows = len(gradient) if gradient.dim() else 1
    matrix = widened(gradient.detach()).reshape(rows, -1)
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(matrix.shape[0], generator=generator).to(matrix)
    right = torch.randn(matrix.shape[1], generator=generator).to(matrix)
    return (left @ (matrix @ right)).double()
