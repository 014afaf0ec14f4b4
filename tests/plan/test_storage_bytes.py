"""Bytes that autograd saves: known by hand for small modules, with values and without."""

import pytest
import torch
from torch import Tensor, nn

from feldspar.plan.storage_bytes import saved_activations
from feldspar.reversible.recompute import recomputed

FLOAT_BYTES = 4


@pytest.fixture(params=["cpu", "meta"])
def network(request: pytest.FixtureRequest) -> nn.Sequential:
    """Two linear maps around a tanh."""
    with torch.device(request.param):
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def rows_of(network: nn.Module, n_rows: int) -> Tensor:
    return torch.zeros(n_rows, 3, device=next(network.parameters()).device)


def test_each_storage_counts_once_and_parameters_do_not(network: nn.Sequential) -> None:
    x = rows_of(network, 7)
    with saved_activations(network.parameters()) as saved:
        out = network(x)
    # The tanh and the second map keep the same tensor; the first map keeps its input.
    assert saved.bytes == saved.most_bytes == FLOAT_BYTES * 7 * (3 + 5)
    out.sum().backward()
    assert saved.bytes == 0 and saved.most_bytes == FLOAT_BYTES * 7 * (3 + 5)


def test_views_share_a_storage(network: nn.Sequential) -> None:
    x = rows_of(network, 8).requires_grad_()
    with saved_activations([]) as saved:
        kept = [x[:4].exp(), x[4:] * x[:4], x.t() * x.t()]
    of_exponential = FLOAT_BYTES * 4 * 3
    assert saved.bytes == FLOAT_BYTES * 8 * 3 + of_exponential
    del kept
    assert saved.bytes == 0


def test_a_backward_pass_that_saves_again_has_its_own_largest_moment(
    network: nn.Sequential,
) -> None:
    x = rows_of(network, 7).requires_grad_()
    with saved_activations(network.parameters()) as saved:
        (out,) = recomputed(network, x)
        assert saved.bytes == FLOAT_BYTES * 7 * 3
        out.sum().backward()
    assert saved.most_bytes == FLOAT_BYTES * 7 * (3 + 5)
    assert saved.bytes == 0
