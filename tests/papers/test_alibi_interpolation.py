"""What is read beyond training, token by token, and the claims on made-up losses."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from feldspar.evaluate.text_model import TextModel
from feldspar.papers.alibi_interpolation.experiment import (
    ARMS,
    LINEAR,
    NONE,
    PAPER,
    REACHES,
    SEEDS,
    SHORT,
    TRAINED,
    Losses,
    extrapolation_claim,
    fine_tuned_claim,
    loss_at_reach,
    reach_figure,
    rows_of,
    trials,
    zero_shot_claim,
)
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, PositionScaling
from tests.evaluate.conftest import make_model, tokenizer
from tests.papers.conftest import finished, stated

__all__ = ["make_model", "tokenizer"]
CLAIMS = stated(PAPER)
TRAIN_LENGTH = 16


def last_losses(model: TextModel, tokens: np.ndarray, scaling: PositionScaling) -> np.ndarray:
    """By one plain pass over the tokens behind a separator."""
    model.decoder.scale_positions(scaling)
    row = torch.from_numpy(np.concatenate([[model.end_of_document_id], tokens]))[None].long()
    logits = model.decoder.logits(model.decoder(row[:, :-1]))[0, :, : model.n_real_vocab].double()
    losses = -torch.log_softmax(logits, -1).gather(1, row[0, 1:, None])[:, 0]
    return losses[-TRAIN_LENGTH // 2 :].detach().numpy()


def test_the_same_tokens_are_asked_for_in_every_way(
    make_model: Callable[..., TextModel],
) -> None:
    model = make_model(positions={"type": "alibi"}, max_sequence_length=TRAIN_LENGTH)
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 256, 8 * TRAIN_LENGTH) for _ in range(3)]
    for reach in REACHES:
        read = [document[: reach * TRAIN_LENGTH] for document in documents]
        for name, pieces, scaling in (
            (SHORT, [piece[-TRAIN_LENGTH:] for piece in read], NoScaling()),
            (NONE, read, NoScaling()),
            (LINEAR, read, LinearScaling(type="linear", factor=reach)),
        ):
            expected = np.mean([last_losses(model, piece, scaling) for piece in pieces])
            model.decoder.scale_positions(LinearScaling(type="linear", factor=3))
            found = loss_at_reach(model, name, documents, reach, TRAIN_LENGTH)
            assert found == pytest.approx(expected, rel=1e-5)
            assert model.decoder.position_scaling == LinearScaling(type="linear", factor=3)
    tuned = np.mean(
        [last_losses(model, d, LinearScaling(type="linear", factor=3)) for d in documents]
    )
    assert loss_at_reach(model, TRAINED, documents, 8, TRAIN_LENGTH) == pytest.approx(tuned)


def losses(**by_name: float) -> Losses:
    """Flat over reaches, three seeds."""
    return {
        name.replace("_", " "): {
            reach: [value, value + 0.01, value + 0.02] if reach > 1 else [2.0] * 3
            for reach in REACHES
        }
        for name, value in by_name.items()
    }


MEASURED = {
    "alibi": losses(short=2.0, none=2.005, linear=1.9, ntk=2.0),
    "rotary": losses(short=2.0, none=2.5, linear=2.3, ntk=2.2),
    "continued": losses(short=2.0, none=2.0, linear=2.0),
    "fine-tuned": losses(short=2.0, as_trained=1.9),
}


def test_what_holds_is_shown() -> None:
    reads_on = extrapolation_claim(MEASURED, CLAIMS)
    assert reads_on.verdict is Verdict.MECHANISM_SHOWN
    assert "rotary 2.0100 in short windows, 2.5100 (24.88% higher" in reads_on.ours
    for claim in (zero_shot_claim(MEASURED, CLAIMS), fine_tuned_claim(MEASURED, CLAIMS)):
        assert claim.verdict is Verdict.MECHANISM_SHOWN
    rows = rows_of(MEASURED)
    assert rows[1] == ["alibi", "none", "2.0000", "2.0150", "2.0150", "2.0150"]
    assert "fine-tuned, as trained" in reach_figure(MEASURED, 128).svg


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"alibi": losses(short=2.0, none=2.1, linear=1.9)}, [False, True, True]),
        ({"rotary": losses(short=2.0, none=2.0)}, [False, True, True]),
        ({"alibi": losses(short=2.0, none=2.0, linear=2.0)}, [True, False, True]),
        ({"fine-tuned": losses(as_trained=1.995)}, [True, True, False]),
        ({"continued": losses(none=1.9)}, [True, True, False]),
    ],
)
def test_what_does_not_hold_is_not_shown(changed: dict[str, Losses], expected: list[bool]) -> None:
    measured = MEASURED | changed
    judges = (extrapolation_claim, zero_shot_claim, fine_tuned_claim)
    assert [judge(measured, CLAIMS).borne_out for judge in judges] == expected


def test_at_the_papers_scale_there_is_no_control() -> None:
    measured = {name: MEASURED[name] for name in ("alibi", "fine-tuned")}
    found = PAPER.judge({"losses": measured}, Scale.PAPER, CLAIMS).claims
    assert {claim.name: claim.borne_out for claim in found} == {
        "twice-as-far-without-training": True,
        "fine-tuned-reads-farther": True,
    }


def test_arms_and_seeds_come_in_order() -> None:
    runs = finished(trials(Scale.SMALL), lambda values: values["seed"])
    for name, own in by_name(runs, tuple(ARMS)).items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert {values_of(run.trial)["choose.training"] for run in own} == {ARMS[name].training}
    [first, second] = trials(Scale.PAPER)
    assert values_of(first) == {"choose.training": "none", "seed": 0}
    assert values_of(second) == {"choose.training": "fine-tuned", "seed": 0}
