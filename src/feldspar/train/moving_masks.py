"""Move a run's masks at the end of a step: RigL, SET and gradual magnitude pruning.

All processes hold the same masks: each matrix is gathered in turn, and the move that the first
process computes is sent to the others.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from feldspar.plan.summary import Plan
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.sections.sparsity import (
    GradualSparsity,
    MovingSparsity,
    RigLSparsity,
)
from feldspar.runtime.collectives import from_first
from feldspar.runtime.shards import local_part
from feldspar.sparsity.density import kept_count, sparsities, starting_sparsities
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.moves import Move, block_sums, drop_and_grow, prune, random_scores
from feldspar.train.optimizer import Optimizer
from feldspar.train.start import part_of


class MovingMasks:
    """Moves the masks of trained matrices at the steps at which the plan's phases move them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._gradients: dict[str, Tensor] = {}
        self.figures: dict[str, float] = {}
        """Figures of the last step's move. Empty where masks did not move."""

    def is_due(self, step: StepPlan) -> bool:
        """Tell whether masks move at the end of a step that updates."""
        schedule, start = self._plan.mask_schedules[step.phase.index], step.phase.start_position
        before, after = step.position_before - start, step.position_after - start
        return schedule is not None and schedule.is_due(before, after)

    def needs_dense_gradient(self, step: StepPlan) -> bool:
        """Tell whether a step's move reads the gradient of entries that are not kept."""
        rigl = isinstance(self._plan.recipe.sparsity(step.phase.index), RigLSparsity)
        return rigl and self.is_due(step)

    def read_gradients(self, step: StepPlan, model: nn.Module, masks: Masks) -> None:
        """Keep a copy of the step's dense gradients for ``move``, if it needs them.

        The gradients are those of all micro-batches, averaged over processes.
        """
        self.figures = {}
        self._gradients = {}
        if self.needs_dense_gradient(step):
            self._gradients = {
                name: parameter.grad.detach().clone()
                for name, parameter in model.named_parameters()
                if name in masks.tensors and parameter.grad is not None
            }

    @torch.no_grad()
    def move(self, step: StepPlan, model: nn.Module, masks: Masks, optimizer: Optimizer) -> Masks:
        """Return the whole masks after the step: other ones than ``masks`` where they move.

        Weights and moments of dropped and grown entries become zero.
        """
        if not masks.tensors or not self.is_due(step):
            return masks
        tensors, ever, dropped, grown = dict(masks.tensors), dict(masks.ever), 0, 0
        settings, shares = self._plan.recipe.sparsity(step.phase.index), self._pruned_shares(step)
        for name, parameter in model.named_parameters():
            if name not in tensors or not parameter.requires_grad:
                continue
            before = tensors[name]
            move = self._move(step, name, before, parameter, shares.get(name, 0.0))
            kept, changed = from_first(torch.stack([move.mask, move.changed]).cpu())
            kept, local = kept.clone(), part_of(changed, parameter)
            local_part(parameter)[0].masked_fill_(local, 0)
            optimizer.reset_moments(name, local)
            tensors[name] = kept
            if not isinstance(settings, GradualSparsity):
                ever[name] = ever.get(name, before) | kept
            dropped, grown = dropped + move.dropped, grown + move.grown
        self._gradients = {}
        self.figures = _figures(tensors, ever, dropped, grown)
        return replace(masks, tensors=tensors, ever=ever)

    def _pruned_shares(self, step: StepPlan) -> dict[str, float]:
        """Return the share of zeros of each matrix after gradual pruning's move."""
        settings = self._plan.recipe.sparsity(step.phase.index)
        schedule = self._plan.mask_schedules[step.phase.index]
        if schedule is None or not isinstance(settings, GradualSparsity):
            return {}
        final = sparsities(settings, self._plan.shapes.rows)
        inside = step.position_after - step.phase.start_position
        return {
            name: schedule.pruned_share(first, final[name], inside)
            for name, first in starting_sparsities(settings, final).items()
        }

    def _move(
        self, step: StepPlan, name: str, mask: Tensor, parameter: Tensor, pruned_share: float
    ) -> Move:
        """Compute the move of one matrix."""
        settings = self._plan.recipe.sparsity(step.phase.index)
        schedule = self._plan.mask_schedules[step.phase.index]
        assert schedule is not None and isinstance(settings, MovingSparsity)
        weight, block = _whole(parameter.detach()), settings.block
        mask = mask.to(weight.device)
        if isinstance(settings, GradualSparsity):
            blocks = mask.numel() // (block[0] * block[1])
            return prune(mask, weight, kept_count(blocks, pruned_share), block)
        if isinstance(settings, RigLSparsity):
            scores = block_sums(_whole(self._gradients[name]), block)
        else:
            shape = mask.shape[0], mask.shape[1]
            seed = settings.mask_seed(self._plan.recipe.seed)
            scores = random_scores(shape, block, seed, name, step.position_after).to(weight.device)
        inside = step.position_after - step.phase.start_position
        fraction = schedule.drop_fraction(settings.drop_fraction, inside)
        return drop_and_grow(mask, weight, scores, fraction, block, settings.allow_regrow)


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor that processes may hold in parts; each process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _figures(
    masks: Mapping[str, Tensor], ever: Mapping[str, Tensor], dropped: int, grown: int
) -> dict[str, float]:
    """Return figures of a move for metrics.jsonl; ``ever_active`` is the ITOP rate (2102.02887)."""
    entries = sum(mask.numel() for mask in masks.values())
    active = sum(int(ever.get(name, mask).sum()) for name, mask in masks.items())
    figures = {
        "masks/density": sum(int(mask.sum()) for mask in masks.values()) / entries,
        "masks/dropped": dropped,
        "masks/grown": grown,
    }
    return figures | ({"masks/ever_active": active / entries} if ever else {})
