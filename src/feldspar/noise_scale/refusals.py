"""Reject models without per-example gradients (BatchNorm, DataParallel, ...)."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from feldspar.core.errors import UserError


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, without the wrappers of copying and compiling."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def refuse(model: nn.Module) -> None:
    """Raise UserError for a model whose per-example gradients are undefined or unavailable.

    A module may declare ``couples_examples = True`` if its output or loss mixes the examples of a
    batch (load balancing, contrastive losses).
    """
    if isinstance(model, nn.DataParallel):
        raise UserError(
            "DataParallel copies the model in every pass",
            do="use DistributedDataParallel, or instrument the model inside",
        )
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, _BatchNorm):
            raise UserError(
                f"{where} normalises over the batch, so an example has no gradient of its own",
                do="replace it with LayerNorm, RMSNorm or GroupNorm",
            )
        if getattr(module, "couples_examples", False):
            raise UserError(
                f"{where} declares that it couples examples, so an example has no "
                "gradient of its own",
                do="switch off that part of the loss while the noise scale is measured",
            )
    if getattr(getattr(model, "config", None), "output_router_logits", False):
        raise UserError(
            "the model adds a load-balancing loss over the batch (output_router_logits), "
            "so an example has no gradient of its own",
            do="set config.output_router_logits = False while the noise scale is measured",
        )


def refuse_embedding(name: str, module: nn.Embedding) -> None:
    """Raise UserError for an embedding whose gradient is not a sum of dense rows over examples."""
    problem = (
        "has sparse gradients"
        if module.sparse
        else "scales its gradients by the frequency of ids in the batch"
        if module.scale_grad_by_freq
        else "renormalises its rows in the forward pass"
        if module.max_norm is not None
        else None
    )
    if problem:
        raise UserError(
            f"{name or 'the embedding'} {problem}",
            allowed="sparse=False, scale_grad_by_freq=False, max_norm=None",
        )
