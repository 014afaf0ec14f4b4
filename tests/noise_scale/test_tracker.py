"""The tracker's promises: invisible, reversible, and a clear refusal of what it cannot measure."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.noise_scale.tracker import instrument


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def step(tracker, model, x=None, times=1):
    x = torch.randn(4, 3, 5) if x is None else x
    for _ in range(times):
        with tracker.microbatch():
            model(x).square().sum().backward()


def test_nothing_shows_of_it_but_the_statistics():
    model, x = small_model(), torch.randn(4, 3, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    plain = model(x)
    tracker = instrument(model, "all")
    step(tracker, model, x)
    tracker.finish(4)
    assert [name for name, _ in model.named_parameters()] == names
    assert list(model.named_buffers()) == []
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(model(x), plain)
    tracker.remove()
    assert all("forward" not in module.__dict__ for module in model.modules())
    tracker.remove()  # once is enough, twice does no harm
    instrument(model, "all").remove()


def test_a_copy_of_an_instrumented_model_computes_with_its_own_weights():
    model, x = small_model(), torch.randn(4, 3, 5)
    instrument(model, "all")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for value in twin.parameters():
            value.zero_()
    assert twin(x).abs().sum() == 0 and model(x).abs().sum() > 0


def test_passes_outside_of_a_microbatch_do_not_count():
    model = small_model()
    tracker, x = instrument(model, "all"), torch.randn(4, 3, 5)
    step(tracker, model, x)
    once = tracker.finish(4)
    model.zero_grad()
    model(torch.randn(9, 3, 5)).sum().backward()
    model.zero_grad()
    with tracker.microbatch():
        with torch.no_grad():
            model(torch.randn(7, 3, 5))
        model(x).square().sum().backward()
    again = tracker.finish(4)
    assert again["total"] == once["total"]


def test_groups_add_up_and_norm_coverage_has_no_total():
    model = small_model()
    tracker = instrument(model, "all")
    step(tracker, model)
    stats = tracker.finish(4)
    parts = stats.parameters.values()
    assert stats["total"].m1 == pytest.approx(sum(part.m1 for part in parts))
    assert stats["norm"].grad_sq == pytest.approx(
        stats["1.weight"].grad_sq + stats["1.bias"].grad_sq
    )
    assert stats["total"].noise == pytest.approx(sum(part.noise for part in parts))
    tracker.remove()
    model.zero_grad()
    tracker = instrument(model, "norm")
    step(tracker, model)
    stats = tracker.finish(4)
    assert [*stats] == ["norm", "1.weight", "1.bias"] and "total" not in stats
    assert tracker.excluded == ("0.weight", "0.bias", "2.weight", "2.bias")
    with pytest.raises(UserError, match="total was not measured"):
        stats["total"]
    assert stats.get("total") is None and stats.get("norm") == stats["norm"]
    with pytest.raises(UserError, match="single examples were not kept"):
        _ = stats.per_example


def test_frozen_parameters_are_left_out_and_named():
    model = small_model()
    model[0].weight.requires_grad_(False)
    tracker = instrument(model, "all")
    step(tracker, model)
    stats = tracker.finish(4)
    assert tracker.excluded == ("0.weight",)
    assert "total" in stats and "0.weight" not in stats and "0.bias" in stats


def test_what_is_trained_only_later_is_not_in_the_total():
    model = small_model()
    model[0].weight.requires_grad_(False)
    tracker = instrument(model, "all")
    model[0].weight.requires_grad_(True)
    step(tracker, model)
    stats = tracker.finish(4)
    assert "total" not in stats and "0.weight" not in stats and stats["0.bias"].m1 > 0
    assert model[0].weight.grad is not None


def test_a_coverage_of_ones_own():
    model = small_model()
    tracker = instrument(model, lambda name, module: name in ("0", "1"))
    step(tracker, model)
    assert {*tracker.finish(4).parameters} == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_a_layer_skipped_in_some_micro_batches_contributes_nothing_there():
    model = small_model()
    tracker, x = instrument(model, "all", per_example=True), torch.randn(2, 3, 5)
    step(tracker, model, x)
    with tracker.microbatch():
        model[0](x).square().sum().backward()
    stats = tracker.finish(4)
    assert (stats.per_example["2.weight"] > 0).tolist() == [True, True, False, False]
    assert (stats.per_example["0.weight"] > 0).all()


def test_gradients_that_are_not_finite_are_reported_not_raised():
    model = small_model()
    tracker, x = instrument(model, "all"), torch.randn(4, 3, 5)
    x[1, 2, 3] = math.nan
    step(tracker, model, x)
    assert not tracker.finish(4).finite
    model.zero_grad()
    step(tracker, model)
    assert tracker.finish(4).finite


def test_input_by_keyword_and_of_several_dimensions():
    layer = nn.Linear(5, 2)
    tracker = instrument(layer, "all")
    with tracker.microbatch():
        layer(input=torch.randn(4, 2, 3, 5)).sum().backward()
    assert tracker.finish(4)["total"].m1 > 0


class Mixing(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.scale * (x - x.mean(0, keepdim=True))


class Coupled(nn.Module):
    """A head that declares a contrastive loss."""

    couples_examples = True


REFUSED = [
    (lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "normalises over the batch"),
    (lambda: nn.SyncBatchNorm(3), "normalises over the batch"),
    (lambda: nn.Sequential(nn.Linear(3, 3), Coupled()), "couples examples"),
    (lambda: nn.Embedding(3, 2, sparse=True), "has sparse gradients"),
    (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), "scales its gradients"),
    (lambda: nn.Embedding(3, 2, max_norm=1.0), "renormalises its rows"),
    (lambda: nn.DataParallel(nn.Linear(2, 2)), "DataParallel copies"),
    (lambda: nn.Linear(2, 2).requires_grad_(False), "no trained parameter"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[case[1] for case in REFUSED])
def test_models_whose_examples_have_no_gradient_of_their_own(make, message):
    with pytest.raises(UserError, match=message) as caught:
        instrument(make(), "all")
    assert "\n" not in caught.value.what


def test_a_load_balancing_loss_is_refused():
    from types import SimpleNamespace

    model = nn.Linear(2, 2)
    model.config = SimpleNamespace(output_router_logits=True)
    with pytest.raises(UserError, match="load-balancing loss over the batch"):
        instrument(model, "all")


def test_a_module_that_mixes_examples_is_refused_when_it_runs():
    model = Mixing()
    tracker = instrument(model, "all")
    with pytest.raises(UserError, match="Mixing mixes the examples"), tracker.microbatch():
        model(torch.randn(4, 5)).square().sum().backward()


class OfTheWholeBatch(Mixing):
    """Fails on anything but four examples."""

    def forward(self, x):
        return self.scale * x.view(4, 5)


def test_a_module_that_does_not_run_on_one_example_is_refused():
    model = OfTheWholeBatch()
    tracker = instrument(model, "all")
    message = "OfTheWholeBatch does not run on one example"
    with pytest.raises(UserError, match=message) as caught, tracker.microbatch():
        model(torch.randn(4, 5)).sum().backward()
    assert "invalid for input" in caught.value.found


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.LayerNorm(3, elementwise_affine=False)])
def test_norm_coverage_needs_a_norm(model):
    with pytest.raises(UserError, match="no norm layer") as caught:
        instrument(nn.Sequential(model, nn.Linear(3, 3)), "norm")
    assert "coverage='all'" in caught.value.do


def test_coverage_must_be_known():
    with pytest.raises(UserError, match="unknown coverage 'norms'"):
        instrument(small_model(), "norms")


def test_a_model_is_instrumented_once():
    model = small_model()
    instrument(model, "norm")
    with pytest.raises(UserError, match="forward pass of 1 was already replaced"):
        instrument(model, "norm")


def test_a_mask_has_the_shape_of_its_parameter():
    with pytest.raises(UserError, match=r"mask of 0\.weight has a different shape"):
        instrument(small_model(), "all", masks={"0.weight": torch.ones(2, 2, dtype=torch.bool)})


def test_one_example_is_refused():
    model = small_model()
    tracker = instrument(model, "norm")
    step(tracker, model, torch.randn(1, 3, 5))
    with pytest.raises(UserError, match="at least two examples") as caught:
        tracker.finish(1)
    assert caught.value.found == "1"


@pytest.mark.parametrize("told", [8, 3])
def test_a_wrong_number_of_examples_is_refused(told):
    model = small_model()
    tracker = instrument(model, "norm")
    step(tracker, model)
    with pytest.raises(UserError, match="the layers saw 4 examples"):
        tracker.finish(told)
    step(tracker, model)
    tracker.finish(4)


def test_layers_that_see_another_batch_are_named():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.second(self.first(x)[:, :2].flatten(0, 1))

    model = Packed()
    tracker = instrument(model, "all")
    with pytest.raises(UserError, match="second got 8 examples"), tracker.microbatch():
        model(torch.randn(4, 3, 5)).sum().backward()
    # The failed micro-batch left nothing behind.
    tracker.remove()
    tracker = instrument(model, lambda name, module: name == "first")
    with tracker.microbatch():
        model(torch.randn(4, 3, 5)).sum().backward()
    assert {*tracker.finish(4).parameters} == {"first.weight", "first.bias"}


def test_a_second_backward_pass_in_a_micro_batch_is_refused():
    model, x = small_model(), torch.randn(4, 3, 5)
    tracker = instrument(model, "norm")
    with pytest.raises(UserError, match="more than one backward pass"), tracker.microbatch():
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    with pytest.raises(UserError, match="more than one backward pass"), tracker.microbatch():
        model(x).square().sum().backward()
        model(x).square().sum().backward()


def test_gradients_from_before_the_step_are_noticed():
    model = small_model()
    tracker = instrument(model, "all")
    with tracker.microbatch():
        F.linear(torch.randn(4, 3, 5), model[0].weight).sum().backward()
        model[2](torch.randn(4, 3, 6)).sum().backward()
    with pytest.raises(
        UserError, match=r"0\.weight has a gradient that does not come from its module"
    ):
        tracker.finish(4)


def test_misuse_of_the_contexts():
    model = small_model()
    tracker = instrument(model, "norm")
    with pytest.raises(UserError, match="inside a"), tracker.microbatch():
        tracker.finish(4)
    with (
        pytest.raises(UserError, match="inside a"),
        tracker.microbatch(),
        tracker.microbatch(),
    ):
        pass
    with pytest.raises(UserError, match="loss_scale must be positive"):
        tracker.finish(4, loss_scale=0.0)
    tracker.remove()
    with pytest.raises(UserError, match="was removed"), tracker.microbatch():
        pass


def test_an_input_without_examples_is_refused():
    for layer in (nn.Linear(5, 2), nn.LayerNorm(5), nn.RMSNorm(5)):
        tracker = instrument(layer, "all")
        with (
            pytest.raises(UserError, match="without a batch dimension"),
            tracker.microbatch(),
        ):
            layer(torch.randn(5)).sum().backward()


def test_contributions_are_divided_by_the_number_of_processes():
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def step():
        torch.manual_seed(0)
        model, x = nn.Linear(5, 4).double(), torch.randn(3, 7, 5).double()
        tracker = instrument(model, "all", per_example=True)
        with tracker.microbatch():
            (8.0 * model(x)).square().sum().backward()
        return tracker.finish(3, loss_scale=8.0)

    alone = step()
    # A group whose sums change nothing: the other process saw no example.
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        shared = step()
    finally:
        dist.destroy_process_group()
    for name, moments in shared.items():
        assert moments.m1 == pytest.approx(alone[name].m1 / 4, rel=1e-12)
        assert moments.grad_sq == pytest.approx(alone[name].grad_sq, rel=1e-12)
    for name, norms in shared.per_example.items():
        torch.testing.assert_close(norms, alone.per_example[name] / 4)
