"""The exact symmetry of AdamW, through the whole model, its table and six real steps in float64.

For a weight used as A W, (A, initial std, learning rate, epsilon, decay) and (A theta, std / theta,
learning rate / theta, epsilon theta, decay theta) give the same losses: the gradient grows by
theta, and the update must shrink by it.
"""

import pytest
import torch

from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import ParameterGroup, apply
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings

SETTINGS = ParametrizationSettings(
    type="mup",
    base_d_model=16,
    base_d_ff=16.0,
    init_std=0.08,
    learning_rate=1e-2,
    output_multiplier=5.0,
)
EPSILON, DECAY = 1e-3, 0.1  # large enough to matter


def losses(tied: bool, theta: float) -> list[float]:
    """Six steps with the group of the head's tensor re-expressed by ``theta``."""
    settings = ModelSettings(
        n_layers=2,
        d_model=32,
        n_heads=2,
        d_ff=64,
        vocab_size=40,
        max_sequence_length=16,
        tied_embeddings=tied,
    )
    model = Decoder(settings).double()
    groups = apply(model, table(SETTINGS, model_shapes(settings)))
    head = model.head_weight
    with torch.no_grad():
        head.div_(theta)
    model.output_multiplier *= theta
    optimizer = torch.optim.AdamW(
        [options for group in groups for options in optimizer_groups(group, head, theta)],
        betas=(0.9, 0.95),
    )
    tokens = torch.randint(0, 40, (6, 4, 17), generator=torch.Generator().manual_seed(0))
    found = []
    for step_tokens in tokens:
        total, count = model.loss(step_tokens[:, :-1], step_tokens[:, 1:])
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        found.append((total / count).item())
    return found


def optimizer_groups(
    group: ParameterGroup, head: torch.Tensor, theta: float
) -> list[dict[str, object]]:
    """A group's options for AdamW, the head in one of its own."""
    options = []
    for factor, members in (
        (theta, [value for value in group.parameters if value is head]),
        (1.0, [value for value in group.parameters if value is not head]),
    ):
        if members:
            options.append(
                {
                    "params": members,
                    "lr": SETTINGS.learning_rate * group.learning_rate_multiplier / factor,
                    "weight_decay": DECAY * group.weight_decay_multiplier * factor,
                    "eps": EPSILON * group.epsilon_multiplier * factor,
                }
            )
    return options


@pytest.fixture(scope="module")
def untied() -> list[float]:
    found = losses(tied=False, theta=1.0)
    assert len(set(found)) == 6, "the steps change the model"
    return found


def test_it_is_exact_for_powers_of_two(untied: list[float]) -> None:
    assert losses(tied=False, theta=4.0) == untied


def test_it_holds_for_any_factor(untied: list[float]) -> None:
    assert losses(tied=False, theta=0.1) == pytest.approx(untied, rel=1e-12, abs=0)


@pytest.mark.parametrize("theta", [4.0, 0.1])
def test_tied_embeddings_do_not_have_it(theta: float) -> None:
    plain, changed = losses(tied=True, theta=1.0), losses(tied=True, theta=theta)
    assert max(abs(a / b - 1) for a, b in zip(plain, changed, strict=True)) > 0.01
