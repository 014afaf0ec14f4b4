"""In each of several processes: train RECIPE's model split by FSDP2; the first writes bytes to OUT.

Two micro-batches, the first without an exchange, as the trainer takes them.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import apply, parameter_groups
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.runtime.distributed import Distribution, accumulate
from feldspar.train.next_token import LanguageModelLoss
from feldspar.train.optimizer import Optimizer

torch.set_num_threads(1)
recipe = load_recipe(sys.argv[1]).recipe
plan = plan_recipe(recipe)


def check(distribution: Distribution) -> None:
    decoder = Decoder(recipe.model)
    apply(decoder, plan.table, recipe.seed)
    module = distribution.wrap(LanguageModelLoss(decoder, 16))
    optimizer = Optimizer(parameter_groups(decoder, plan.table), recipe.optimizer)

    def local_bytes(tensors: list[Tensor]) -> int:
        parts = [item.to_local() if isinstance(item, DTensor) else item for item in tensors]
        return sum(part.numel() * part.element_size() for part in parts)

    def whole_gradients() -> int:
        """What FSDP2 itself holds of tensors that were not exchanged yet."""
        found = 0
        for part in module.modules():
            group = (
                part._get_fsdp_state()._fsdp_param_group if isinstance(part, FSDPModule) else None
            )
            for item in group.fsdp_params if group is not None else []:
                gradient = item.unsharded_accumulated_grad
                gradient = item._unsharded_param.grad if gradient is None else gradient
                found += 0 if gradient is None else gradient.numel() * gradient.element_size()
        return found

    tokens = torch.arange(16).view(1, 16) % 16
    with accumulate(module, last=False):
        module(tokens, tokens).backward()
    accumulated = whole_gradients()
    with accumulate(module, last=True):
        module(tokens, tokens).backward()
    parameters: list[nn.Parameter] = list(decoder.parameters())
    figures = {
        "weights_bytes": local_bytes([parameter.data for parameter in parameters]),
        "accumulated_bytes": accumulated,
        "gradients_bytes": local_bytes([item.grad for item in parameters if item.grad is not None]),
        "optimizer_bytes": local_bytes(list(optimizer.state().values())),
    }
    if distribution.is_first:
        Path(sys.argv[2]).write_text(json.dumps(figures))


with Distribution.start(recipe.runtime) as distribution:
    check(distribution)
