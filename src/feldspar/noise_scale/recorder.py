"""State that all instrumented layers of a model share while a micro-batch is recorded."""

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.uses import ParameterUses

TOLERANCE = 1e-4
"""Relative tolerance of a gradient's norm, for sums in float32."""
LOW_PRECISION_TOLERANCE = 2e-2
"""The same for layers with bfloat16 or float16 parameters (FSDP2's mixed precision)."""


class Recorder:
    """Records whether layers measure, the number of examples, and the origin of gradients.

    The first micro-batch is checked: the gradient of a parameter must be the sum of the gradients
    from its instrumented uses. Otherwise the norms would belong to a part of it.
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
        """Sum of random linear forms, and its tolerance."""

    def begin(self, n_examples: int | None = None) -> None:
        """Begin a micro-batch with this number of examples; None: the first layer gives it."""
        self.active = True
        self.n_examples, self._n_positions = n_examples, None
        self._has_observed = False

    def end(self) -> None:
        """End the micro-batch, whether it succeeded or not."""
        self.active = False
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._told.clear()
        self._arrived.clear()

    def observe(self, layer: str, n_examples: int, n_positions: int | None = None) -> None:
        """Record that a layer sees this number of examples, each with a number of positions if it
        has any.

        Raises UserError unless all layers see the same number of examples.
        """
        if self.n_examples is None:
            self.n_examples = n_examples
        if not self._has_observed:
            self._n_positions = n_positions
        self._has_observed = True
        if self.n_examples != n_examples:
            raise UserError(
                f"{layer} got {n_examples} examples in its first dimension, but the "
                f"layers before it got {self.n_examples}",
                do="give every layer the batch in its first dimension; name embeddings "
                "whose ids are the same for all examples in instrument(shared=[...]); "
                "exclude layers that see no examples (routed experts, packed "
                "sequences) with coverage=lambda name, module: ...",
            )

    def unflattened(self, x: Tensor) -> Tensor:
        """Return a layer's input (B T, d), with the positions of all examples in a row, as (B, T,
        d)."""
        if torch.compiler.is_compiling() or x.dim() != 2:
            return x
        if self.n_examples is None or self._n_positions is None:
            return x
        flat = len(x) == self.n_examples * self._n_positions and self._n_positions > 1
        return x.unflatten(0, (self.n_examples, self._n_positions)) if flat else x

    def watch(self, uses: ParameterUses, parameter: Tensor) -> None:
        """Record the gradient that arrives at a parameter, in the first micro-batch only."""
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

    def report_gradient(self, uses: ParameterUses, gradient: Tensor) -> None:
        """Record a gradient that a use sends to its parameter."""
        if not self._audited:
            form = _random_form(gradient)
            before = self._told.get(uses.name)
            self._told[uses.name] = form if before is None else before + form

    def audit(self) -> None:
        """Raise UserError for a parameter that gets gradient from elsewhere."""
        self._audited = True
        for name, (arrived, slack) in self._arrived.items():
            told = self._told.get(name, torch.zeros_like(arrived))
            # A gradient that is not finite passes this comparison; the statistics will report it.
            if bool((arrived - told).abs() > slack):
                raise UserError(
                    f"{name} gets gradient from outside its module's forward pass",
                    do="call the module instead of using its parameter, or exclude it "
                    "with coverage=lambda name, module: ...",
                )


def _random_form(gradient: Tensor) -> Tensor:
    """Return a fixed random linear form of the gradient, on average as large as its norm, float64
    ()."""
    rows = len(gradient) if gradient.dim() else 1
    matrix = widened(gradient.detach()).reshape(rows, -1)
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(matrix.shape[0], generator=generator).to(matrix)
    right = torch.randn(matrix.shape[1], generator=generator).to(matrix)
    return (left @ (matrix @ right)).double()
