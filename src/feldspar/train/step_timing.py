"""Time a training step of a large model by models of one and of two blocks.

A block adds the same time to each of them, so that the time of any number of blocks follows. What
lies outside the blocks (embeddings, head, loss) is a part of both.
"""

import time
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import Tensor

from feldspar.core.cgroups import memory_bytes
from feldspar.core.errors import SetupError
from feldspar.model.decoder import Decoder, resolved_vocab_size
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import parameter_groups
from feldspar.parametrization.tables import table
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.runtime.device import autocast, choose_device, choose_precision
from feldspar.sparsity.products import now
from feldspar.train.next_token import LanguageModelLoss
from feldspar.train.optimizer import Optimizer

ROUNDS, MOST_SECONDS = 4, 30.0
"""Timings of each model, of which the fastest counts, and seconds after which no more are made."""
PACE_ROUNDS, PACE_SECONDS = 32, 1.0
"""Most steps with each number of threads for a pace, and seconds after which no more are made."""
BUSY = 1.5
"""A step that takes so many times its processor time on the clock shows other programs."""
BYTES = 16
"""Bytes of a parameter with its gradient and two moments."""


@dataclass(frozen=True)
class StepTiming:
    """Seconds of models of one and two blocks with dense products."""

    tokens: int
    """Tokens of a forward and backward pass."""
    passes: tuple[float, float]
    """Forward and backward pass."""
    update: tuple[float, float]
    """Norm of the gradient, clipping and update of the weights."""

    def seconds(self, n_layers: int, tokens: int) -> float:
        """Return the seconds of a step of a model with ``n_layers`` blocks."""
        passes = _at_depth(self.passes, n_layers) * tokens / self.tokens
        return passes + _at_depth(self.update, n_layers)


def time_step(recipe: Recipe, phase_index: int, sequences: int) -> StepTiming:
    """Time passes of ``sequences`` sequences and updates of a phase that trains all parameters.

    Raises SetupError where the models do not fit into memory.
    """
    sizes = [recipe.model.model_copy(update={"n_layers": depth}) for depth in (1, 2)]
    _require_memory(sizes)
    context = recipe.context_lengths[phase_index]
    draw = torch.Generator().manual_seed(0)
    vocabulary = resolved_vocab_size(recipe.model)
    tokens = torch.randint(vocabulary, (sequences, context), generator=draw)
    timed = [_TimedModel(recipe, phase_index, size, tokens) for size in sizes]
    found: list[list[tuple[float, float]]] = [[], []]
    began = time.perf_counter()
    for turn in range(ROUNDS):
        if turn and time.perf_counter() - began > MOST_SECONDS:
            break
        for seconds, model in zip(found, timed, strict=True):
            seconds.append(model.step())
    (one, own_update), (two, other_update) = (map(min, zip(*own, strict=True)) for own in found)
    return StepTiming(tokens.numel(), (one, two), (own_update, other_update))


@dataclass(frozen=True)
class Pace:
    """Tokens per second of whole training steps on this machine."""

    undisturbed: float
    """Speed of the fastest step, or that of one thread by its processor time, if that is faster.
    Other programs cannot lower the second one."""
    now: float
    """Speed on the clock, beside whatever else runs."""


def measure_pace(recipe: Recipe, phase_index: int, sequences: int) -> Pace:
    """Time whole steps of ``sequences`` sequences with one thread and with all of them.

    Raises SetupError where the model does not fit into memory.
    """
    _require_memory([recipe.model])
    context = recipe.context_lengths[phase_index]
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(resolved_vocab_size(recipe.model), (sequences, context), generator=draw)
    model = _TimedModel(recipe, phase_index, recipe.model, tokens)
    all_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        model.step()  # warms up
        one = [model.timed_step() for _ in range(2)]
        began = time.perf_counter()
        clock = [seconds for seconds, _ in one]
        # Beside other programs threads wait for one another, and a step may take a minute.
        alone = not model.on_processor or one[-1][0] < BUSY * one[-1][1]
        shared = []
        for _ in range(PACE_ROUNDS):
            if time.perf_counter() - began > PACE_SECONDS:
                break
            torch.set_num_threads(1)
            one.append(model.timed_step())
            clock.append(one[-1][0])
            if alone and all_threads > 1:
                torch.set_num_threads(all_threads)
                shared.append(model.timed_step()[0])
    finally:
        torch.set_num_threads(all_threads)
    fastest = min(clock + shared)
    if model.on_processor:
        fastest = min(fastest, median(processor for _, processor in one))
    # The mean: between short steps other programs take whole slices of time.
    usual = min(fmean(clock), fmean(shared or clock))
    return Pace(tokens.numel() / fastest, tokens.numel() / usual)


class _TimedModel:
    """A model with its optimizer, and a micro-batch of random tokens."""

    def __init__(
        self, recipe: Recipe, phase_index: int, model: ModelSettings, tokens: Tensor
    ) -> None:
        self._device = choose_device(recipe.runtime)
        self._precision = choose_precision(recipe.runtime, self._device)
        decoder = Decoder(model).to(self._device)
        decoder.activation_memory = recipe.runtime.activation_memory
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.normal_(std=0.02)
        settings = recipe.optimizer_of(phase_index)
        rates = table(recipe.parametrization, model_shapes(model), {}, settings)
        self._optimizer = Optimizer(parameter_groups(decoder, rates), settings)
        self._optimizer.set_rates(rates.learning_rate, settings.weight_decay)
        self._module = LanguageModelLoss(decoder, resolved_vocab_size(model))
        self._tokens = tokens.to(self._device)

    def timed_step(self) -> tuple[float, float]:
        """Take a step; return its seconds on the clock and of the processor."""
        clock, processor = time.perf_counter(), time.process_time()
        self.step()
        return time.perf_counter() - clock, time.process_time() - processor

    @property
    def on_processor(self) -> bool:
        """True if the processor computes the step."""
        return self._device.type == "cpu"

    def step(self) -> tuple[float, float]:
        """Take a step; return the seconds of its passes and of its update."""
        began = now(self._device)
        with autocast(self._device, self._precision):
            loss = self._module(self._tokens, self._tokens)
        (loss / self._tokens.numel()).backward()
        passed = now(self._device)
        self._optimizer.step(self._optimizer.gradient_norm())
        self._optimizer.zero_gradients()
        return passed - began, now(self._device) - passed


def _at_depth(seconds: tuple[float, float], n_layers: int) -> float:
    """Return the seconds of ``n_layers`` blocks from those of one and of two."""
    one, two = seconds
    return one + (n_layers - 1) * max(two - one, 0.0)


def _require_memory(models: list[ModelSettings]) -> None:
    needed = BYTES * sum(model_shapes(model).parameters for model in models)
    limit = memory_bytes()
    if limit is not None and needed > limit:
        raise SetupError(
            "not enough memory to time models of one and of two blocks",
            found=f"{limit / 1e9:,.3g} GB on this machine",
            do=f"use a machine with more than {needed / 1e9:,.3g} GB",
        )
