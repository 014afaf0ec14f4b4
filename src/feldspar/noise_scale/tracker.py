"""Instrument a model to measure per-example gradient norms in its own backward pass.

Method: 2411.00999 (norm layers), 1510.01799 and 2110.05679 (linear layers). The forward functions
of module instances are replaced, and ``remove`` restores them. Parameters, names, state_dict and
gradients do not change.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.noise_scale.assignment import Assignment, Coverage, assign
from feldspar.noise_scale.control.statistics import Moments, StepStatistics
from feldspar.noise_scale.gathering import (
    gather_examples,
    n_processes,
    squared_gradients,
    sum_over_processes,
)
from feldspar.noise_scale.norms.norm_layers import NormRule
from feldspar.noise_scale.parameter_types import is_norm
from feldspar.noise_scale.recorder import Recorder
from feldspar.noise_scale.refusals import refuse, unwrapped
from feldspar.noise_scale.rule import Rule

COVERAGES: dict[str, Coverage] = {
    "all": lambda name, module: True,
    "norm": lambda name, module: is_norm(module),
}
NEGLIGIBLE, UNDERFLOW = 1e-12, 1e-30
"""Squared gradients that may vanish in float32: relative to the largest, and absolute."""


def instrument(
    model: nn.Module,
    coverage: Literal["norm", "all"] | Coverage = "norm",
    per_example: bool = False,
    masks: Mapping[str, Tensor] | None = None,
    shared: Collection[str] | None = None,
) -> "Tracker":
    """Instrument ``model`` to measure each example's share of its gradient; return the tracker.

    ``coverage``: norm layers only, which costs nothing; all layers; or a function (module name,
    module) -> bool. ``per_example`` keeps the norms of each example. ``masks`` (parameter name ->
    bool, True where kept) leave out entries at which a sparse run masks its gradient. The model may
    be wrapped by DDP, split by FSDP2, or compiled, before or after.

    Each layer must get the batch in its first dimension. ``shared`` names the exceptions:
    embeddings (names or globs) whose ids are the same for all examples, such as positions or a
    table of relative positions. Their output gets a leading dimension of examples. None: nothing is
    declared, and an embedding whose ids could be either is refused.

    Raises UserError for models whose examples have no gradients of their own (BatchNorm, declared
    couplings), for embeddings with sparse or rescaled gradients, and if no parameter is covered.
    """
    model = unwrapped(model)
    refuse(model)
    if isinstance(coverage, str) and coverage not in COVERAGES:
        raise UserError(
            f"unknown coverage {coverage!r}", allowed=[*COVERAGES, "a function of your own"]
        )
    covers = COVERAGES[coverage] if isinstance(coverage, str) else coverage
    shared = [shared] if isinstance(shared, str) else shared
    assignment = assign(model, covers, masks or {}, shared)
    if not assignment.uses:
        raise UserError(
            "no trained parameter is covered"
            if coverage != "norm"
            else "the model has no norm layer with trained parameters",
            do="use coverage='all', or the micro-batch estimator (track_groups)",
        )
    return Tracker(model, assignment, per_example)


class Tracker:
    """Collect the squared norms of each example's share of a step's gradient.

    ``excluded`` names the parameters that are not measured: not covered, or frozen.
    """

    def __init__(self, model: nn.Module, assignment: Assignment, per_example: bool) -> None:
        self.excluded = tuple(assignment.excluded)
        self._model = model
        self._found = assignment
        self._recorder = assignment.recorder
        self._uses = list(assignment.uses.values())
        self._per_example = per_example
        self._columns: list[Tensor] = []
        self._installed = True
        for module, rule in assignment.rules:
            _install(module, rule, self._recorder, per_example)

    @property
    def rules(self) -> dict[str, list[str]]:
        """Rules that measure each parameter: parameter name -> names of the rules of its uses."""
        found: dict[str, list[str]] = {uses.name: [] for uses in self._uses}
        for _, rule in self._found.rules:
            for uses in rule.uses.values():
                found[uses.name].append(type(rule).__name__)
        for head in self._found.heads:
            found[head.uses.name].append(type(head).__name__)
        return found

    def follow_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Use other masks of the parameters that have one, between two steps."""
        for uses in self._uses:
            if uses.mask is not None:
                uses.mask = masks[uses.name]

    @contextmanager
    def microbatch(self, n_examples: int | None = None) -> Generator[None]:
        """Record one micro-batch; its forward and its backward pass must both be inside.

        ``n_examples`` is needed if an embedding that all examples share comes before all layers
        that see the batch.
        """
        if not self._installed:
            raise UserError("the tracker was removed from its model", do="instrument it again")
        if self._recorder.active:
            raise UserError("microbatch() was called inside another microbatch()")
        for uses in self._uses:
            uses.begin()
        for module, rule in self._found.rules:
            if isinstance(rule, NormRule):
                rule.prepare(module)
        for head in self._found.heads:
            head.begin()
        self._recorder.begin(n_examples)
        try:
            yield
            self._close()
        except BaseException:
            self._forget()
            raise
        finally:
            self._recorder.end()
            for head in self._found.heads:
                head.end()

    @torch.no_grad()
    def finish(
        self,
        num_examples: int,
        loss_scale: float = 1.0,
        group: dist.ProcessGroup | None = None,
    ) -> StepStatistics:
        """Return the statistics of the micro-batches since the last call.

        Call it after the last backward pass, when all gradients are complete (and masked, if they
        are), before they are unscaled, clipped or used. ``num_examples`` is the number of examples
        of the whole step, over all processes. ``loss_scale`` is the factor that the gradients still
        have. ``group`` is the group of processes whose gradients were averaged (None: all); each of
        them must call this.

        Raises UserError for fewer than two examples, or another number than the layers saw.
        """
        if self._recorder.active:
            raise UserError("finish() was called inside a microbatch()")
        try:
            return self._statistics(num_examples, loss_scale, group)
        finally:
            self._forget()

    def remove(self) -> None:
        """Restore the modules' own forward passes."""
        if self._installed:
            for module, _ in self._found.rules:
                del module.__dict__["forward"]
        self._installed = False

    @torch.no_grad()
    def _close(self) -> None:
        """Take the norms of a micro-batch."""
        n_examples = self._recorder.n_examples
        if n_examples is None:
            return
        self._recorder.audit()
        rows = [uses.finish(n_examples) for uses in self._uses]
        device = next((row.device for row in rows if row is not None), torch.device("cpu"))
        none = torch.zeros(n_examples, dtype=torch.float64, device=device)
        told = [none if row is None else row.to(none) for row in rows]
        self._columns.append(torch.stack(told))

    def _forget(self) -> None:
        self._columns.clear()
        for uses in self._uses:
            uses.begin()
        for _, rule in self._found.rules:
            if isinstance(rule, NormRule):
                rule.collect()

    def _statistics(
        self, num_examples: int, loss_scale: float, group: dist.ProcessGroup | None
    ) -> StepStatistics:
        if num_examples < 2:
            raise UserError(
                "the noise scale needs at least two examples in each step", found=num_examples
            )
        if not loss_scale > 0:
            raise UserError("loss_scale must be positive", found=loss_scale)
        parameters = [uses.parameter for uses in self._uses]
        device = parameters[0].device
        columns, sums, n_local, problem = self._collect(device)
        counts = torch.zeros(n_processes(group), dtype=torch.float64, device=device)
        counts[dist.get_rank(group) if len(counts) > 1 else 0] = n_local
        flag = torch.full((1,), float(problem is not None), dtype=torch.float64, device=device)
        gathered = sum_over_processes(torch.cat([sums, counts, flag]), group).cpu()
        sums, counts, flag = gathered.split([len(sums), len(counts), 1])
        if flag.item():
            raise problem or UserError("another process could not measure its examples")
        if counts.sum() != num_examples:
            raise UserError(
                f"the layers saw {counts.sum():.0f} examples in the micro-batches of the step",
                found=f"num_examples={num_examples}",
                do="give the number of sequences over all processes; each packed "
                "sequence needs a row of its own",
            )
        grad_sq = squared_gradients(parameters, device).cpu()
        negligible = max(float(grad_sq.max()) * NEGLIGIBLE, UNDERFLOW)
        for uses, norm, square in zip(self._uses, sums.tolist(), grad_sq.tolist(), strict=True):
            if norm == 0 and square > negligible:
                raise UserError(
                    f"{uses.name} has a gradient that does not come from its module's "
                    "forward pass in a microbatch()",
                    do="set the gradients to zero before the step; call the module, not "
                    "its parameter",
                )
        share = (len(counts) * loss_scale) ** -2
        moments = {
            uses.name: Moments(num_examples * share * norm, square / loss_scale**2, num_examples)
            for uses, norm, square in zip(self._uses, sums.tolist(), grad_sq.tolist(), strict=True)
        }
        per_example = None
        if self._per_example:
            rows = gather_examples(columns * share, [int(n) for n in counts], group)
            per_example = {uses.name: row for uses, row in zip(self._uses, rows, strict=True)}
        return StepStatistics(moments, self._groups(parameters), per_example)

    def _collect(self, device: torch.device) -> tuple[Tensor, Tensor, int, UserError | None]:
        """Return this process's norms (P, n), their sums (P,) with those of compiled
        layers, and n."""
        places = {uses.name: place for place, uses in enumerate(self._uses)}
        empty = torch.zeros(len(places), 0, dtype=torch.float64, device=device)
        columns = torch.cat([empty, *(part.to(device) for part in self._columns)], dim=1)
        sums = columns.sum(1)
        compiled: dict[str, int] = {}
        norms = [rule for _, rule in self._found.rules if isinstance(rule, NormRule)]
        left = [(rule, *rule.collect()) for rule in norms]
        outlets = [outlet.to(device) for _, outlet, _ in left if outlet is not None]
        # Transfer all at once, because each transfer waits for the device.
        values = torch.stack(outlets).tolist() if outlets else []
        for rule, outlet, n_uncompiled in left:
            if outlet is not None:
                weight, bias, n_examples = values.pop(0)
                compiled[rule.name] = n_uncompiled + round(n_examples)
                for local_name, square in (("weight", weight), ("bias", bias)):
                    if local_name in rule.uses:
                        sums[places[rule.uses[local_name].name]] += square
        n_local = columns.shape[1] or min(compiled.values(), default=0)
        for name, n_examples in compiled.items():
            if n_examples != n_local:
                problem = UserError(
                    f"{name} saw {n_examples} examples in compiled passes, but other "
                    f"layers saw {n_local}",
                    do="give every layer the batch in its first dimension; do not compile a layer "
                    "that a pass uses more than once",
                )
                return columns, sums, n_local, problem
        return columns, sums, n_local, None

    def _groups(self, parameters: list[nn.Parameter]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        measured = {id(parameter) for parameter in parameters}
        trained = (parameter for parameter in self._model.parameters() if parameter.requires_grad)
        if all(id(parameter) in measured for parameter in trained):
            groups["total"] = [uses.name for uses in self._uses]
        for uses in self._uses:
            kind = self._found.types[uses.name]
            if kind is not None:
                groups.setdefault(kind, []).append(uses.name)
        return groups


def _install(module: nn.Module, rule: Rule, recorder: Recorder, per_example: bool) -> None:
    """Install the rule instead of the module's forward pass, for recorded micro-batches only."""
    # A compiled graph returns only sums, and does not apply masks.
    masked = any(uses.mask is not None for uses in rule.uses.values())
    compiles = rule.compiles and not per_example and not masked
    run: Callable[..., Any] = rule.forward if compiles else torch.compiler.disable(rule.forward)
    plain = rule.plain

    @wraps(plain)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not recorder.active or not torch.is_grad_enabled():
            return plain(self, *args, **kwargs)
        if not rule.takes_one_tensor:
            return run(self, *args, **kwargs)
        [x] = (*args, *kwargs.values())
        apart = recorder.unflattened(x)
        return run(self, apart) if apart is x else run(self, apart).flatten(0, 1)

    module.forward = MethodType(forward, module)
