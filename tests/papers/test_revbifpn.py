"""RevBiFPN: counts beside torchvision's, passes of tiny networks, and judgements both ways."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from feldspar.core.json_files import json_values
from feldspar.papers.kit.claims import Claim, Verdict
from feldspar.papers.kit.paper import Findings, Scale
from feldspar.papers.kit.turns import WARM_UP, seconds_in_turn
from feldspar.papers.revbifpn import plain
from feldspar.papers.revbifpn.detection import MEASURES, STAGE, detection_stage
from feldspar.papers.revbifpn.efficientnet import SIZES as EFFICIENTNETS
from feldspar.papers.revbifpn.efficientnet import efficientnet_shapes
from feldspar.papers.revbifpn.experiment import PAPER, RATE, SIZE, judge, measure, stages
from feldspar.papers.revbifpn.memory import bytes_an_image, deep, image, step_bytes
from feldspar.papers.revbifpn.passes import curve_figures, gradient_figures, time_figures
from feldspar.papers.revbifpn.training import held_out, recipe_of, train_network
from feldspar.recipe.sections.vision import SIZES, revbifpn_settings
from feldspar.study.trials import TrialResult
from feldspar.vision.data import ImageData
from feldspar.vision.idx import open_idx
from feldspar.vision.network_cost import count_multiply_adds, measured_step, shapes_of
from feldspar.vision.revbifpn import RevBiFPN
from tests.papers.conftest import finished, stated
from tests.vision.pictures import write_split

TORCHVISION_PARAMETERS = {
    "B0": 5288548,
    "B1": 7794184,
    "B2": 9109994,
    "B3": 12233232,
    "B4": 19341616,
    "B5": 30389784,
    "B6": 43040704,
    "B7": 66347960,
}
"""Parameters of torchvision 0.28's networks."""
TORCHVISION_BYTES = {"B0": (176572168, 181706416), "B1": (286147456, 291281704)}
"""Bytes saved and alive in a step of two images of torchvision 0.28's networks."""


def parameters_of(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("size", EFFICIENTNETS)
def test_efficientnets_have_torchvisions_parameters(size: str) -> None:
    assert parameters_of(efficientnet_shapes(size)) == TORCHVISION_PARAMETERS[size]


@pytest.mark.parametrize("size", TORCHVISION_BYTES)
def test_efficientnets_keep_torchvisions_bytes(size: str) -> None:
    pixels = EFFICIENTNETS[size][2]
    found = measured_step(efficientnet_shapes(size), image(pixels, 2), 1000)
    assert found == TORCHVISION_BYTES[size]


def test_an_efficientnet_of_torchvision_itself_agrees() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        other = models.efficientnet_b7()
    own, pixels = efficientnet_shapes("B7"), EFFICIENTNETS["B7"][2]
    assert parameters_of(own) == parameters_of(other)
    assert bytes_an_image(own, pixels) == bytes_an_image(other, pixels)


def test_an_image_takes_less_where_streams_are_rebuilt() -> None:
    """A step without values holds the bytes of a real one; an image's bytes lack what is shared."""
    settings = deep(2)
    assert settings == revbifpn_settings("S0")
    planned = step_bytes(shapes_of(settings), "meta")
    assert planned == step_bytes(RevBiFPN(settings), "cpu")
    saved, alive = bytes_an_image(shapes_of(settings), 64)
    _, stored = bytes_an_image(shapes_of(settings, "store"), 64)
    assert 0 < saved <= alive < stored / 4
    assert 2 * alive < planned


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Images of Fashion-MNIST's shape whose classes are rows of light."""
    root = tmp_path_factory.mktemp("light")
    for name, count in (("train", 200), ("held-out", 40)):
        labels = np.arange(count) % 10
        chance = np.random.default_rng(count)
        pixels = chance.integers(0, 60, size=(count, 28, 28), dtype=np.uint8)
        for place, label in enumerate(labels):
            pixels[place, 2 * label + 4 : 2 * label + 6] += 180
        write_split(root / name, pixels, labels.astype(np.uint8))
    return ImageData(*(open_idx(root / name, 1, "train") for name in ("train", "held-out")))


def test_rebuilt_gradients_differ_by_rounding_and_not_on_the_grid(data: ImageData) -> None:
    found = gradient_figures(data, [0])
    assert found["grid"] == [0.0]
    assert 0 < found["float64"][0] < 1e-10 < found["float32"][0] < 1e-2
    assert 0 < found["rounding"][0] < 1e-2


def test_curves_on_the_grid_are_equal_bit_for_bit(data: ImageData) -> None:
    found = curve_figures(data, [0, 1], 2)
    assert found["stored on the grid"] == found["rebuilt on the grid"]
    assert found["stored"] != found["stored on the grid"]
    first, second = found["stored"]
    assert len(first) == 2 and first != second


def test_training_in_no_folder_is_that_of_a_run(data: ImageData) -> None:
    recipe = recipe_of("choose.size=T0", "phases.0.length=3 steps")
    network = RevBiFPN(recipe.model, "store", recipe.seed)
    trained = train_network(network, recipe, data)
    assert len(trained.losses) == 3 and trained.network is not network
    measured = held_out(trained.network, recipe, data)
    assert set(measured) == {"validation/loss", "validation/top1", "validation/top5"}


def test_plain_networks_have_no_more_multiply_adds_than_the_size_beside_them(
    data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "RATES", {"plain": (0.05, 0.1), plain.LOGISTIC: (0.01,)})
    found, tried = plain.plain_figures(data, range(2), 7, ("phases.0.length=2 steps",))
    for size in plain.WIDTHS:
        recipe = recipe_of(f"{SIZE}={size}")
        pixels = recipe.phases[-1].resolution
        beside = count_multiply_adds(shapes_of(recipe.model), pixels, pixels).total
        assert 0.7 * beside < found[plain.plain_name(size)]["multiply_adds"] <= beside
        assert len(found[plain.plain_name(size)]["accuracy"]) == 2
    best = min(tried["plain"], key=lambda row: row["loss"])
    assert found["plain T0"]["rate"] == found["plain T2"]["rate"] == best["rate"]
    assert found[plain.LOGISTIC]["parameters"] == 32 * 32 * 10 + 10


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def step(name: str) -> float:
        order.append(name)
        return len(order)

    seconds = seconds_in_turn({name: lambda name=name: step(name) for name in "abc"}, 4)
    assert "".join(order[:9]) == "abcbcacab" and len(order) == 3 * (WARM_UP + 4)
    assert all(len(own) == 4 for own in seconds.values())


def test_passes_of_each_kind_are_timed() -> None:
    seconds = time_figures(1, 32)
    assert set(seconds) == {"stored", "rebuilt", "stored again"}
    assert all(len(own) == 1 and own[0] > 0 for own in seconds.values())


def test_sizes_are_trained_at_the_rate_that_was_best() -> None:
    rates, sizes, detection = stages(Scale.SMALL)
    tried: list[TrialResult] = finished(rates.trials({}), lambda values: abs(values[RATE] - 0.4))
    chosen = sizes.trials({"rates": tried})
    assert len(chosen) == 15 and all(f"{RATE}=0.4" in trial.overrides for trial in chosen)
    assert not any("seed=100" in trial.overrides for trial in chosen)
    assert len(detection.trials({})) == 6, "two arms with three seeds"
    quick, detection = stages(Scale.QUICK)
    assert (len(quick.trials({})), len(detection.trials({}))) == (3, 2)
    [paper] = stages(Scale.PAPER)
    assert len(paper.trials({})) == len(SIZES)


def some_figures() -> dict[str, Any]:
    """Figures by which every claim holds, and the paper's own are met."""
    memory: dict[str, Any] = {}
    gmacs = {"S0": 0.31, "S1": 0.62, "S2": 1.37, "S3": 3.33, "S4": 10.6, "S5": 21.8, "S6": 38.1}
    alive = {"S4": 0.11, "S5": 0.23, "S6": 0.255, "B5": 1.44, "B6": 2.61, "B7": 5.05}
    for name in (*SIZES, *EFFICIENTNETS):
        own = alive.get(name, 0.1) * 1e9
        memory[name] = {"pixels": 224, "parameters": 10, "saved": own / 2, "alive": own}
        memory[name]["multiply_adds"] = gmacs.get(name, 1) * 1e9
        if name in gmacs:
            memory[name] |= {"paper_multiply_adds": gmacs[name] * 1e9, "stored": 5 * own}
    flat = {"reversible": [100, 101], "store": [500, 2000]}
    seeds = (0.0, 0.001, -0.001, 0.002, 0.0)
    accuracy = {
        "T0": 0.70,
        "T1": 0.80,
        "T2": 0.85,
        "plain T0": 0.69,
        "plain T1": 0.80,
        "plain T2": 0.84,
        plain.LOGISTIC: 0.75,
    }
    sizes = {
        name: {
            "multiply_adds": 1e5 * place,
            "parameters": 5,
            "rate": 0.2,
            "accuracy": [value + seed for seed in seeds],
        }
        for place, (name, value) in enumerate(accuracy.items(), start=1)
    }
    curves = {"stored": [[2.0, 1.0], [2.1, 1.2]], "rebuilt": [[2.0, 1.001], [2.1, 1.201]]}
    curves |= {f"{name} on the grid": [[2.0, 1.0], [2.1, 1.2]] for name in ("stored", "rebuilt")}
    return {
        "memory": memory,
        "depth": {
            "extra_silos": [2, 16],
            "counted": flat,
            "planned_step": flat,
            "real_step": deepcopy(flat),
        },
        "sizes": sizes,
        "gradients": {
            "rounding": [1e-6] * 3,
            "float32": [2e-6, 3e-6, 1e-3],
            "float64": [1e-14] * 3,
            "grid": [0.0] * 3,
        },
        "curves": curves,
        "seconds": {
            "stored": [1.0, 1.1, 0.9],
            "rebuilt": [1.3, 1.45, 1.2],
            "stored again": [1.01, 1.09, 0.91],
        },
        "detection": {
            name: {
                "parameters": 100,
                "activation_bytes": kept,
                "step_bytes": kept + 10,
                "loss": [0.6, 0.5, 0.7],
                "AP": precisions,
                "AP50": [0.7, 0.75, 0.8],
                "AP75": [0.4, 0.5, 0.6],
                "AR100": [0.5, 0.6, 0.7],
            }
            for name, kept, precisions in (
                ("stored", 300, [0.40, 0.45, 0.50]),
                ("rebuilt", 100, [0.41, 0.44, 0.51]),
            )
        },
    }


def judged(figures: dict[str, Any], scale: Scale = Scale.SMALL) -> dict[str, Claim]:
    plain_values = json.loads(json.dumps(json_values(figures)))
    found: Findings = judge(plain_values, scale, stated(PAPER))
    return {claim.name: claim for claim in found.claims}


def test_every_claim_can_hold() -> None:
    claims = judged(some_figures())
    reproduced = {
        "less-than-efficientnet-b7",
        "less-than-smaller-efficientnets",
        "sizes-as-printed",
    }
    for name, claim in claims.items():
        shown = Verdict.REPRODUCED if name in reproduced else Verdict.MECHANISM_SHOWN
        assert claim.verdict is shown, (name, claim.ours)
    assert "a true difference of" in claims["accuracy-grows-with-compute"].ours
    quick = PAPER.findings(some_figures(), Scale.QUICK)
    told = {claim.name: claim.verdict for claim in quick.claims}
    assert told["accuracy-grows-with-compute"] is Verdict.NO_VERDICT
    assert told["less-than-efficientnet-b7"] is Verdict.REPRODUCED, "bytes are counted"
    assert told["detection"] is Verdict.NEEDS_SCALE
    assert told["detection-with-rebuilt-activations"] is Verdict.NO_VERDICT
    assert len(quick.tables) == 3 and quick.figure is not None


def change(figures: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *folders, last = path.split("/")
    place = figures
    for folder in folders:
        place = place[folder]
    place[last] = value
    return figures


@pytest.mark.parametrize(
    ("path", "value", "claim"),
    [
        ("memory/S6/alive", 0.36e9, "less-than-efficientnet-b7"),
        ("memory/S5/alive", 0.4e9, "less-than-smaller-efficientnets"),
        ("memory/S2/stored", 0.2e9, "less-than-without-reversibility"),
        ("depth/counted/reversible", [100, 120], "flat-in-depth"),
        ("depth/counted/store", [500, 800], "flat-in-depth"),
        ("depth/real_step/store", [500, 2001], "flat-in-depth"),
        ("memory/S3/paper_multiply_adds", 3.4e9, "sizes-as-printed"),
        ("sizes/T1/accuracy", [0.85, 0.86, 0.84, 0.85, 0.85], "accuracy-grows-with-compute"),
        ("sizes/plain T1/accuracy", [0.83] * 5, "competitive-at-equal-compute"),
        ("gradients/float32", [1e-5, 1e-5, 1e-6], "gradients-are-equal"),
        ("gradients/float64", [1e-14, 1e-9, 1e-14], "gradients-are-equal"),
        ("gradients/grid", [0.0, 0.0, 1e-9], "gradients-are-equal"),
        ("curves/rebuilt on the grid", [[2.0, 1.0], [2.1, 1.3]], "curves-are-equal"),
        ("curves/rebuilt", [[2.0, 1.5], [2.1, 1.5]], "curves-are-equal"),
        ("seconds/rebuilt", [1.5, 1.7, 1.4], "one-more-forward-pass"),
        ("detection/rebuilt/AP50", [0.4, 0.5, 0.45], "detection-with-rebuilt-activations"),
        ("detection/stored/AP", [0.5, 0.5, 0.53], "detection-with-rebuilt-activations"),
    ],
)
def test_every_claim_can_fail(path: str, value: Any, claim: str) -> None:
    claims = judged(change(some_figures(), path, value))
    assert claims[claim].verdict is Verdict.NOT_BORNE_OUT
    assert sum(own.borne_out is False for own in claims.values()) == 1


def test_less_memory_than_the_papers_is_not_its_figure() -> None:
    """A ratio far above the paper's holds, but does not reproduce its figure."""
    claims = judged(change(some_figures(), "memory/S6/alive", 0.1e9))
    assert claims["less-than-efficientnet-b7"].verdict is Verdict.MECHANISM_SHOWN


def test_a_noisy_control_is_named() -> None:
    claims = judged(change(some_figures(), "seconds/stored again", [1.3, 1.4, 1.2]))
    own = claims["one-more-forward-pass"]
    assert own.verdict is Verdict.NOT_BORNE_OUT and "too noisy" in own.reason


def test_the_papers_own_runs_are_judged_by_their_accuracies() -> None:
    figures = {key: some_figures()[key] for key in ("memory", "depth")}
    rows = zip(SIZES, (0.728, 0.759, 0.79, 0.811, 0.83, 0.837, 0.842), strict=True)
    figures["sizes"] = {name: {"multiply_adds": 1e9, "accuracy": [value]} for name, value in rows}
    claims = judged(figures, Scale.PAPER)
    assert claims["accuracy-grows-with-compute"].borne_out
    assert "one-more-forward-pass" not in claims and "competitive-at-equal-compute" not in claims


def test_the_stage_of_detection_has_figures_of_its_own() -> None:
    pytest.importorskip("torchvision")
    metrics = dict.fromkeys(MEASURES.values(), 0.25) | {"train/loss": 0.5}
    runs: list[TrialResult] = [
        replace(run, metrics=metrics)
        for run in finished(detection_stage(Scale.SMALL).trials({}), lambda values: 0.5)
    ]
    figures = measure({STAGE: runs}, Scale.SMALL)
    own = figures[STAGE]
    assert set(figures) == {STAGE} and set(own) == {"stored", "rebuilt"}
    assert own["rebuilt"]["AP50"] == [0.25] * 3 and own["rebuilt"]["loss"] == [0.5] * 3
    assert own["stored"]["activation_bytes"] > own["rebuilt"]["activation_bytes"]
    assert own["stored"]["parameters"] == own["rebuilt"]["parameters"]
    assert STAGE in PAPER.separate
    earlier = {key: value for key, value in some_figures().items() if key != STAGE}
    assert judged(earlier)["detection-with-rebuilt-activations"].verdict == "no verdict"
