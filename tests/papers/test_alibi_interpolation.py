"""Reading beyond training, token by token, and the claims on made-up figures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from feldspar.evaluate.text_model import TextModel
from feldspar.papers.alibi_interpolation.claims import (
    Measured,
    fine_tuned_claim,
    judge,
    reads_on_claim,
    slope_table,
    twice_claim,
    undamaged_claim,
)
from feldspar.papers.alibi_interpolation.experiment import (
    PAPER,
    PRETRAINED,
    SEEDS,
    TUNED,
    paper_trials,
    trials,
    tuned_trials,
)
from feldspar.papers.alibi_interpolation.reading import (
    LINEAR,
    NONE,
    REACHES,
    SHORT,
    TRAINED,
    far_band,
    loss_at_reach,
    recall_at_reach,
)
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.papers.kit.recall import recall_documents, recall_in
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, PositionScaling
from tests.evaluate.conftest import make_model, tokenizer
from tests.papers.conftest import finished, stated

__all__ = ["make_model", "tokenizer"]
CLAIMS = stated(PAPER)
TRAIN_LENGTH = 16
TRIPLE = LinearScaling(type="linear", factor=3)


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
    documents = [generator.integers(0, 256, 4 * TRAIN_LENGTH) for _ in range(3)]
    for reach in REACHES:
        read = [document[: reach * TRAIN_LENGTH] for document in documents]
        for name, pieces, scaling in (
            (SHORT, [piece[-TRAIN_LENGTH:] for piece in read], NoScaling()),
            (NONE, read, NoScaling()),
            (LINEAR, read, LinearScaling(type="linear", factor=reach)),
        ):
            expected = np.mean([last_losses(model, piece, scaling) for piece in pieces])
            model.decoder.scale_positions(TRIPLE)
            found = loss_at_reach(model, name, documents, reach, TRAIN_LENGTH)
            assert found == pytest.approx(expected, rel=1e-5)
            assert model.decoder.position_scaling == TRIPLE
    tuned = np.mean([last_losses(model, d, TRIPLE) for d in documents])
    assert loss_at_reach(model, TRAINED, documents, 4, TRAIN_LENGTH) == pytest.approx(tuned)


def test_recall_is_measured_in_the_farther_half_of_the_window(
    make_model: Callable[..., TextModel],
) -> None:
    model = make_model(positions={"type": "alibi"}, std=0.5)
    assert far_band(1, 128) == (64, 128) and far_band(2, 128) == (128, 256)
    model.decoder.scale_positions(LinearScaling(type="linear", factor=2))
    [expected] = recall_in(model, recall_documents(model, 64), [(32, 64)])
    model.decoder.scale_positions(TRIPLE)
    share, nats = recall_at_reach(model, LINEAR, 2, 32)
    assert (share, nats) == pytest.approx((expected.share, expected.nats))
    assert model.decoder.position_scaling == TRIPLE


def by_reach(value: float) -> dict[str, list[float]]:
    """Flat over reaches, three seeds, as JSON holds it."""
    return {str(reach): [value, value + 0.001, value + 0.002] for reach in REACHES}


def figures(**changes: float) -> dict[str, Any]:
    """Figures with which all claims hold, changed by ``losses_alibi_divided=2.5`` and the like."""
    found = {
        "losses": {
            "alibi": {SHORT: 2.0, NONE: 2.005, LINEAR: 2.01},
            "rotary": {SHORT: 2.0, NONE: 2.5, LINEAR: 2.3},
            "fine-tuned": {SHORT: 2.0, TRAINED: 2.0},
            "unscaled": {SHORT: 2.0, TRAINED: 2.0},
        },
        "recall": {
            "alibi": {NONE: 0.2, LINEAR: 0.8},
            "rotary": {NONE: 0.1, LINEAR: 0.3},
            "fine-tuned": {TRAINED: 0.9},
            "unscaled": {TRAINED: 0.5},
        },
        "nats": {
            "alibi": {NONE: 2.0, LINEAR: 1.0},
            "rotary": {NONE: 3.0, LINEAR: 2.0},
            "fine-tuned": {TRAINED: 0.5},
            "unscaled": {TRAINED: 1.0},
        },
    }
    within = changes.pop("within", 0.97)
    for key, value in changes.items():
        figure, arm, scaling = key.split("_")
        names = {"short": SHORT, "none": NONE, "linear": LINEAR, "trained": TRAINED}
        found[figure][arm.replace("tuned", "fine-tuned")][names[scaling]] = value
    return {
        figure: {
            arm: {scaling: by_reach(value) for scaling, value in own.items()}
            for arm, own in arms.items()
        }
        for figure, arms in found.items()
    } | {"within": {arm: [within] * 3 for arm in ("alibi", "rotary", "fine-tuned", "unscaled")}}


JUDGES = (reads_on_claim, twice_claim, undamaged_claim, fine_tuned_claim)


def test_what_holds_is_shown() -> None:
    found = judge(figures(), 128, CLAIMS)
    assert {claim.verdict for claim in found.claims} == {Verdict.MECHANISM_SHOWN}
    told = {claim.name: claim.ours for claim in found.claims}
    assert "rotary 2.0010 in short windows, 2.5010 (24.99% higher" in told["alibi-reads-on"]
    assert "60.00% more (+- 0.00% over 3 seeds) of all" in told["twice-as-far-without-training"]
    assert found.figure is not None and "fine-tuned, as fine-tuned" in found.figure.svg


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"losses_alibi_none": 2.1}, [False, True, True, True]),
        ({"losses_rotary_none": 2.0}, [False, True, True, True]),
        ({"recall_alibi_linear": 0.24}, [True, False, True, True]),
        ({"nats_alibi_linear": 2.1}, [True, False, True, True]),
        ({"losses_alibi_linear": 2.1}, [True, True, False, True]),
        ({"recall_tuned_trained": 0.84}, [True, True, True, False]),
        ({"recall_unscaled_trained": 0.88}, [True, True, True, False]),
        ({"within": 0.9}, [True, False, True, False]),
    ],
)
def test_what_does_not_hold_is_not_shown(changed: dict[str, float], expected: list[bool]) -> None:
    measured = Measured.of(figures(**changed))
    found = [judge(measured, CLAIMS) for judge in JUDGES]
    assert [claim.borne_out for claim in found] == expected
    if "within" in changed:
        assert "not learnt to recall" in found[1].reason and "not learnt" in found[3].reason


def test_at_the_papers_scale_only_the_text_is_read() -> None:
    losses = {name: figures()["losses"][name] for name in ("alibi", "fine-tuned")}
    [found] = PAPER.judge({"losses": losses}, Scale.PAPER, CLAIMS).claims
    assert found.name == "twice-as-far-without-damage" and found.borne_out


def test_arms_and_seeds_come_in_order() -> None:
    runs = finished(trials(Scale.SMALL), lambda values: values["seed"])
    for name, own in by_name(runs, tuple(PRETRAINED)).items():
        assert [run.score for run in own] == list(SEEDS[Scale.SMALL])
        assert {values_of(run.trial)["choose.positions"] for run in own} == {name}
    tuned = finished(tuned_trials({"lengths": runs}, Scale.SMALL), lambda values: values["seed"])
    for name, own in by_name(tuned, tuple(TUNED)).items():
        assert {values_of(run.trial)["choose.training"] for run in own} == {name}
        started = [values_of(run.trial)["start_from.path"] for run in own]
        assert started == [str(run.folder) for run in runs[: len(SEEDS[Scale.SMALL])]]
    assert [values_of(trial)["choose.training"] for trial in paper_trials()] == [
        "none",
        "fine-tuned",
    ]


def test_both_fine_tunings_have_the_same_tokens_and_differ_by_their_factor() -> None:
    plans = [
        plan_recipe(load_recipe("alibi-interpolation/small", list(trial.overrides)).recipe)
        for trial in tuned_trials({}, Scale.SMALL)[:: len(SEEDS[Scale.SMALL])]
    ]
    assert len({plan.timeline.length for plan in plans}) == 1
    scalings = [plan.recipe.position_scaling(0) for plan in plans]
    assert scalings == [LinearScaling(type="linear", factor=4), NoScaling()]


def test_the_shallowest_slope_spans_the_trained_length_as_in_the_paper() -> None:
    rows = slope_table(128).rows
    assert rows[-1][:2] == ["0.0625", "8"]
