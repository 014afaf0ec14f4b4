"""Run one model of a coordinate check: a small decoder, ten steps, the sizes of its activations.

The learning rate is constant; there is no warm-up, clipping, weight decay or dropout. All runs read
the same batches in the same order.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from feldspar.core.streams import numpy_stream
from feldspar.corpus.readers.installed import standard_library_files
from feldspar.model.attention import Attention
from feldspar.model.decoder import Decoder
from feldspar.model.feed_forward import FeedForward
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply
from feldspar.parametrization.coordinates import (
    ATTENTION_LOGITS,
    ATTENTION_OUTPUT,
    FEED_FORWARD_OUTPUT,
    LOGITS,
    QUANTITIES,
    RESIDUAL_STREAM,
    STEPS,
    Measure,
)
from feldspar.parametrization.tables import ParametrizationTable
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.optimizer import LanguageOptimizer
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.masks import Masks
from feldspar.train.optimizer import Optimizer

VOCAB_SIZE = 256
CONTEXT_TOKENS = 64
SEQUENCES = 8
TEXT_BYTES = 4_000_000
UNDISTURBED = {"betas": (0.9, 0.95), "epsilon": 1e-12, "weight_decay": 0.0, "clip_norm": "none"}
"""Settings of the optimizer that every run has, whatever the recipe's."""


@dataclass(frozen=True)
class CoordinateRun:
    """Model, table, density, seed and optimizer; a run's measures depend on nothing else."""

    table: ParametrizationTable
    model: ModelSettings
    density: float
    seed: int
    optimizer: LanguageOptimizer


def static_sparsity(density: float) -> StaticSparsity:
    """Return random masks of one density for all matrices of a block."""
    return StaticSparsity(type="static", sparsity=1 - density)


def draw_batches() -> np.ndarray:
    """Return the probe batch and one batch for each step, (1 + steps, sequences, context + 1),
    uint8.

    The bytes are the source text of Python's standard library, which is real text on every machine.
    """
    text = bytearray()
    for _, path in standard_library_files((".py",)):
        text += path.read_bytes()
        if len(text) >= TEXT_BYTES:
            break
    window = CONTEXT_TOKENS + 1
    starts = numpy_stream(0, "study.coordinate_check.windows").integers(
        len(text) - window, size=(1 + STEPS[-1], SEQUENCES, 1)
    )
    return np.frombuffer(text, dtype=np.uint8)[starts + np.arange(window)]


def measure_run(run: CoordinateRun, batches: np.ndarray) -> dict[Measure, float]:
    """Train on all batches but the first, and measure on the first after each of ``STEPS``."""
    with _one_thread():
        return dict(_measures(run, torch.from_numpy(batches).long()))


@contextmanager
def _one_thread() -> Generator[None]:
    """Use one thread: the models are too small for more, and workers run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measures(run: CoordinateRun, batches: Tensor) -> Iterator[tuple[Measure, float]]:
    model = Decoder(run.model)
    rows = model_shapes(run.model).rows
    masks = Masks.draw(static_sparsity(run.density), rows, run.seed)
    optimizer = Optimizer(apply(model, run.table, run.seed), run.optimizer)
    optimizer.set_rates(run.table.learning_rate, 0.0)
    masks.apply_to_weights(model)
    probe = batches[0, :, :-1]
    initial = observe(model, probe)
    for step in range(STEPS[-1] + 1):
        if step > 0:
            _train_step(model, masks, optimizer, batches[step])
        if step not in STEPS:
            continue
        observed = initial if step == 0 else observe(model, probe)
        for quantity in QUANTITIES:
            yield Measure(quantity, "size", step), _mean_size(observed[quantity])
            if step > 0:
                pairs = zip(observed[quantity], initial[quantity], strict=True)
                yield (
                    Measure(quantity, "change", step),
                    _mean_size([now - before for now, before in pairs]),
                )


def _train_step(model: Decoder, masks: Masks, optimizer: Optimizer, batch: Tensor) -> None:
    optimizer.zero_gradients()
    loss, n_tokens = model.loss(batch[:, :-1], batch[:, 1:])
    (loss / n_tokens).backward()
    masks.apply_to_gradients(model)
    optimizer.step(optimizer.gradient_norm())
    if not optimizer.keeps_zeros:
        masks.apply_to_weights(model)


@torch.no_grad()
def observe(model: Decoder, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Return the activations of each quantity on ``tokens`` (b, t): one tensor for each block, or
    one."""
    seen: dict[str, list[Tensor]] = {quantity: [] for quantity in QUANTITIES}

    def attention(module: Attention, inputs: tuple, output: Tensor) -> None:
        query, key, _ = module.heads(*inputs)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = module.score_multiplier * (query @ key.transpose(2, 3))
        past = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        seen[ATTENTION_LOGITS].append(scores[..., past])
        seen[ATTENTION_OUTPUT].append(output)

    def feed_forward(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen[FEED_FORWARD_OUTPUT].append(output)

    def residual(module: nn.Module, inputs: tuple) -> None:
        seen[RESIDUAL_STREAM].append(inputs[0])

    handles = [model.final_norm.register_forward_pre_hook(residual)]
    for module in model.modules():
        if isinstance(module, Attention):
            handles.append(module.register_forward_hook(attention))
        elif isinstance(module, FeedForward):
            handles.append(module.register_forward_hook(feed_forward))
    try:
        seen[LOGITS].append(model.logits(model(tokens)))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _mean_size(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.abs().mean() for tensor in tensors]).mean())
