"""Statistics of a step over several processes against one process: KIND and CASES.

A case is COVERAGE-MODEL-ORDER, such as all-tied-after.
"""

import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from tests.noise_scale.conftest import looped_norms
from tests.noise_scale.test_models import draw, make_decoder

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.group_tracker import track_groups
from feldspar.noise_scale.tracker import instrument
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.distributed import Distribution, accumulate
from feldspar.train.next_token import LanguageModelLoss

kind, *cases = sys.argv[1:]
torch.set_num_threads(1)


def check(joined: Distribution, case: str) -> None:
    coverage, _, wrap = case.partition("-")
    distribution = replace(joined, kind=kind)
    if kind == "fsdp":
        distribution = replace(distribution, shards=2)
    rank, size = distribution.rank, distribution.world_size

    N_EXAMPLES, MICRO_BATCHES = 8, 2
    tokens, labels = draw(N_EXAMPLES)
    count = int((labels != -100).sum())
    changes = {"tied_embeddings": "tied" in wrap, "norm": "rms" if "rms" in wrap else "layer"}
    alone = LanguageModelLoss(make_decoder(**changes), 39)

    def loss(model, of):
        # Wrappers average over processes; the sum over all of them is wanted.
        return model(tokens[of], labels[of]) * (size / count)

    expected = looped_norms(alone, lambda i: loss(alone, slice(i, i + 1)) / size, N_EXAMPLES)
    loss(alone, slice(None)).backward()
    whole = {name: value.grad / size for name, value in alone.named_parameters()}

    own = N_EXAMPLES // size // MICRO_BATCHES
    begins = [(rank * MICRO_BATCHES + index) * own for index in range(MICRO_BATCHES)]
    slices = [slice(begin, begin + own) for begin in begins]
    model = LanguageModelLoss(make_decoder(**changes), 39)
    before = "before" in wrap
    if before:
        tracker = instrument(model, coverage, per_example=True)
    wrapped = distribution.wrap(model)
    if not before:
        tracker = instrument(wrapped, coverage, per_example=True)

    for _ in range(2):
        wrapped.zero_grad()
        for index, of in enumerate(slices):
            with (
                tracker.microbatch(),
                accumulate(wrapped, last=index == MICRO_BATCHES - 1),
            ):
                loss(wrapped, of).backward()
        stats = tracker.finish(N_EXAMPLES)
        for name, moments in stats.parameters.items():
            torch.testing.assert_close(
                stats.per_example[name], expected[name], rtol=1e-10, atol=1e-16
            )
            square = float(whole[name].square().sum())
            assert moments.grad_sq == pytest.approx(square, rel=1e-10), name
            m1 = N_EXAMPLES * float(expected[name].sum())
            assert moments.m1 == pytest.approx(m1, rel=1e-10, abs=1e-20), name
    assert ("total" in stats) == (coverage == "all")

    # A process with other examples than it should have stops all of them, each with an error.
    with tracker.microbatch():
        loss(wrapped, slice(0, own + 1 if rank == 0 else own)).backward()
    with pytest.raises(UserError, match=f"the layers saw {size * own + 1} examples"):
        tracker.finish(size * own)
    tracker.remove()
    wrapped.zero_grad()

    if kind == "ddp":
        for groups in ("microbatches", "ranks"):
            hooks = track_groups(wrapped, groups)
            for index, of in enumerate(slices):
                with hooks.microbatch(own), accumulate(wrapped, last=index == MICRO_BATCHES - 1):
                    loss(wrapped, of).backward()
            found = hooks.finish(N_EXAMPLES)
            hooks.remove()
            wrapped.zero_grad()
            n_groups = size * (MICRO_BATCHES if groups == "microbatches" else 1)
            length = N_EXAMPLES // n_groups
            for name, moments in found.parameters.items():
                squares = []
                for begin in range(0, N_EXAMPLES, length):
                    part = loss(alone, slice(begin, begin + length)) / size * n_groups
                    values = dict(alone.named_parameters())
                    (gradient,) = torch.autograd.grad(part, [values[name]])
                    squares.append(float(gradient.square().sum()))
                assert moments.examples_per_group == length
                assert moments.m1 == pytest.approx(sum(squares) / n_groups, rel=1e-9, abs=1e-20)
                square = float(whole[name].square().sum())
                assert moments.grad_sq == pytest.approx(square, rel=1e-10)
    else:
        with pytest.raises(UserError, match="is split over processes"):
            track_groups(wrapped, "ranks")
    dist.barrier()
    sys.stdout.write(f"{case}: all equal\n")


with Distribution.start(RuntimeSettings(device="cpu")) as joined:
    for case in cases:
        check(joined, case)
