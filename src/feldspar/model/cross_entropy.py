"""Cross-entropy of a linear head, fused so that the full logits never exist.

Logits = multiplier x hidden @ weight.T are formed for a chunk of rows in one reused buffer; the
softmax is taken in float32 in place, and the gradients of hidden and weight are accumulated from
it at once, so that backward only scales them.
"""

from typing import Any, Protocol, cast

import torch
from torch import Tensor

IGNORED_LABEL = -100

LOGITS_CHUNK_BYTES = {"cpu": 8 * 2**20}
"""Size of the logits buffer by device. On a processor it fits in the last-level cache."""
LOGITS_CHUNK_BYTES_DEFAULT = 256 * 2**20
"""On an accelerator the buffer is large enough to keep the device busy."""
MINIMUM_LOGITS_ROWS = 256
"""Least rows of a chunk. With fewer, memory traffic of the weight's gradient would dominate."""


class GradientObserver(Protocol):
    """Sees each example's share of the head's gradient, which a fused loss computes."""

    def see(self, example: int, gradient: Tensor) -> None:
        """Take, in the forward pass, the gradient (real vocab, d) of one example's summed loss.

        The tensor is reused for the next example.
        """
        ...

    def scale(self, factor: Tensor, gradient: Tensor) -> None:
        """Take, in the backward pass, the factor of the summed loss and the whole gradient."""
        ...


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    multiplier: float = 1.0,
    n_real_vocab: int | None = None,
    observer: GradientObserver | None = None,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the float32 sum of the tokens' negative log-likelihoods, and the number of tokens.

    ``hidden`` is (..., d), ``weight`` (vocab, d), ``labels`` (...) with -100 ignored. Rows of
    ``weight`` from ``n_real_vocab`` on are padding and take no probability. With an ``observer``
    the first dimension counts examples, which are then taken one after the other. A ``soft_cap`` c
    replaces each logit x by c tanh(x / c).
    """
    loss_sum = cast(
        Tensor,
        _LinearCrossEntropy.apply(
            hidden, weight, labels, multiplier, n_real_vocab, observer, soft_cap
        ),
    )
    return loss_sum, (labels != IGNORED_LABEL).sum()


def linear_token_losses(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    multiplier: float = 1.0,
    n_real_vocab: int | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """Return the float32 negative log-likelihood of each token, as labels; 0 where ignored.

    No gradient flows through it.
    """
    with torch.no_grad():
        losses, _, _ = _chunked(
            *(hidden, weight, labels, multiplier, n_real_vocab),
            want_hidden=False,
            want_weight=False,
            soft_cap=soft_cap,
        )
    return losses.view(labels.shape)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        multiplier: float,
        n_real_vocab: int | None,
        observer: GradientObserver | None,
        soft_cap: float | None,
    ) -> Tensor:
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        losses, grad_hidden, grad_weight = _chunked(
            *(hidden, weight, labels, multiplier, n_real_vocab),
            want_hidden,
            want_weight,
            observer,
            soft_cap,
        )
        ctx.grads = (grad_hidden, grad_weight)
        ctx.observer = observer
        return losses.sum()

    @staticmethod
    def backward(
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, Tensor | None, *tuple[None, ...]]:
        if ctx.grads is None:
            raise RuntimeError("the fused cross-entropy supports one backward pass a forward pass")
        grad_hidden, grad_weight = ctx.grads
        # Scale in place: the buffers are as large as the head, and nothing uses them afterwards.
        ctx.grads = None
        for grad in (grad_hidden, grad_weight):
            if grad is not None:
                grad.mul_(grads[0])
        if ctx.observer is not None and grad_weight is not None:
            ctx.observer.scale(grads[0], grad_weight)
        return grad_hidden, grad_weight, None, None, None, None, None


def _chunked(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    multiplier: float,
    n_real_vocab: int | None,
    want_hidden: bool,
    want_weight: bool,
    observer: GradientObserver | None = None,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return losses (n,) and the gradients of their sum."""
    device_type = hidden.device.type
    dtype = hidden.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    targets = labels.reshape(-1)
    kept = targets != IGNORED_LABEL
    targets = targets.masked_fill(~kept, 0)
    # A zero row adds nothing to the weight's gradient, so ignored rows need no pass over logits.
    rows = hidden.reshape(-1, hidden.shape[-1]).to(dtype).masked_fill(~kept[:, None], 0)
    real = weight[:n_real_vocab].to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    losses = torch.empty(len(rows), dtype=wide, device=rows.device)
    grad_hidden = torch.empty_like(rows) if want_hidden else None
    grad_weight = torch.zeros(weight.shape, dtype=wide, device=rows.device) if want_weight else None
    grad_real = None if grad_weight is None else grad_weight[: len(real)]
    step = _rows_at_a_time(len(real), device_type)
    buffer = torch.empty((min(step, len(rows)), len(real)), dtype=dtype, device=rows.device)
    # Unobserved, all rows count as one example, and its gradient is the whole.
    length, share = max(1, len(rows)), grad_real
    if observer is not None and grad_real is not None:
        length, share = max(1, len(rows) // len(labels)), torch.empty_like(grad_real)
    with torch.autocast(device_type, enabled=False):
        for example, start in enumerate(range(0, len(rows), length)):
            if observer is not None and share is not None:
                share.zero_()
            for begin in range(start, start + length, step):
                part = slice(begin, min(begin + step, start + length))
                logits = buffer[: len(rows[part])]
                logits.addmm_(rows[part], real.t(), beta=0, alpha=multiplier)
                errors = _errors(logits.to(wide), targets[part], losses[part], soft_cap).to(dtype)
                if grad_hidden is not None:
                    out = grad_hidden[part]
                    out.addmm_(errors, real, beta=0, alpha=multiplier)
                if share is not None:
                    _accumulate(share, errors, rows[part], multiplier)
            if observer is not None and share is not None and grad_real is not None:
                observer.see(example, share)
                grad_real.add_(share)
    losses.masked_fill_(~kept, 0)
    if grad_hidden is not None:
        grad_hidden.masked_fill_(~kept[:, None], 0)
        grad_hidden = grad_hidden.view(hidden.shape).to(hidden.dtype)
    return losses, grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)


def _rows_at_a_time(vocab_size: int, device_type: str) -> int:
    chunk_bytes = LOGITS_CHUNK_BYTES.get(device_type, LOGITS_CHUNK_BYTES_DEFAULT)
    return max(MINIMUM_LOGITS_ROWS, chunk_bytes // (4 * vocab_size))


def working_bytes(
    n_rows: int,
    vocab_size: int,
    d_model: int,
    product_bytes: int,
    device_type: str,
    soft_capped: bool = False,
) -> int:
    """Return the bytes that the loss of ``n_rows`` tokens needs at its largest, as an estimate.

    These are the float32 gradients of hidden states and head, a copy of the hidden states and one
    chunk of logits. Products in bfloat16 (``product_bytes`` 2) need that chunk three times (4 + 2 +
    2 bytes) and two copies of the head. A soft cap needs a float32 chunk more.
    """
    narrow = product_bytes < 4
    logits = min(_rows_at_a_time(vocab_size, device_type), n_rows) * vocab_size
    head = vocab_size * d_model
    copies = 2 * product_bytes * head if narrow else 0
    hidden = (4 + product_bytes) * d_model * n_rows
    return logits * ((8 if narrow else 4) + (4 if soft_capped else 0)) + copies + hidden + 4 * head


def _errors(logits: Tensor, targets: Tensor, losses: Tensor, soft_cap: float | None) -> Tensor:
    """Write the losses; return their gradient by the logits as they were before a soft cap."""
    if soft_cap is None:
        return _softmax_errors(logits, targets, losses)
    shares = logits.div_(soft_cap).tanh_()
    slopes = 1 - shares.square()  # the derivative of c tanh(x / c)
    return _softmax_errors(shares.mul_(soft_cap), targets, losses).mul_(slopes)


def _softmax_errors(logits: Tensor, targets: Tensor, losses: Tensor) -> Tensor:
    """Write the losses; turn the logits, in place, into softmax minus one-hot."""
    columns = targets[:, None]
    chosen = logits.gather(1, columns).squeeze(1)
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    # The largest probability is 1 / sum(exp(logit - largest)), whatever the size of the logits.
    log_sum = largest - logits.amax(dim=1).log()
    torch.sub(log_sum, chosen, out=losses)
    logits.scatter_add_(1, columns, logits.new_full(columns.shape, -1.0))
    return logits


def _accumulate(total: Tensor, errors: Tensor, rows: Tensor, multiplier: float) -> None:
    if errors.dtype == total.dtype:
        total.addmm_(errors.t(), rows, alpha=multiplier)
    else:
        total.add_(errors.t() @ rows, alpha=multiplier)
