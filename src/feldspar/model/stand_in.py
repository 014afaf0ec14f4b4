"""Let decoders on the meta device save the tensors that they would save on a real device.

Tensors on the meta device have shapes and no values. The saved tensors depend on the device,
because attention and some of torch's operations run differently. ``standing_for`` names it.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_device_type: ContextVar[str] = ContextVar("device of tensors without values", default="cpu")


def kernel_device(tensor: Tensor) -> str:
    """Return the type of a tensor's device; for the meta device, the type that it stands for."""
    own = tensor.device.type
    return _device_type.get() if own == "meta" else own


@contextmanager
def standing_for(device_type: str) -> Generator[None]:
    """Let decoders on the meta device save what they save on a device of ``device_type``.

    Autocast does not exist on the meta device. Linear maps whose weights are bfloat16 stand for it:
    they cast their input. On anything but "cpu", attention is taken to run in a fused kernel.
    """
    token = _device_type.set(device_type)
    try:
        with _Operations(device_type == "cpu"):
            yield
    finally:
        _device_type.reset(token)


class _Operations(TorchFunctionMode):
    """Replaces the operations that save other tensors on the meta device."""

    def __init__(self, on_processor: bool) -> None:
        super().__init__()
        self.on_processor = on_processor

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, *bias = args
            return func(x.to(weight.dtype), weight, *bias, **kwargs)
        if func is F.layer_norm and not self.on_processor:
            # Autocast of accelerators computes it in float32.
            wide = torch.promote_types(args[0].dtype, torch.float32)
            return func(args[0].to(wide), *args[1:], **kwargs)
        if func is F.dropout and not self.on_processor:
            # Accelerators save a mask of bytes.
            return torch.native_dropout(args[0], kwargs["p"], True)[0]
        if func is F.scaled_dot_product_attention and not (
            kwargs["dropout_p"] and self.on_processor  # There is no fused kernel for that.
        ):
            return _fused_attention(*args, **kwargs)
        return func(*args, **kwargs)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float,
    **_: Any,
) -> Tensor:
    """Call the processor's kernel; those of other devices save tensors of the same sizes."""
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
