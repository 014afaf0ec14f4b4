"""Families: sizes planned and refused before training, trained, resumed, and fitted."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import read_manifest, records_of, write_manifest
from feldspar.plan.flops import training_flops
from feldspar.plan.laws.law import Point
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.study.family import Family, plan_family, run_family, targets_of_widths
from feldspar.study.run_points import read_runs
from tests.train.conftest import metrics_of

WIDTHS = {8: 2, 12: 8, 20: 24, 32: 60}
"""d_model and steps: tokens grow with the parameters, as in a family of a paper."""


def targets() -> list[dict[str, Any]]:
    return [
        {"model.d_model": width, "model.d_ff": 2 * width, "phases.0.length": f"{steps} steps"}
        for width, steps in reversed(WIDTHS.items())
    ]


@pytest.fixture
def study_file(recipe_file: Path) -> Path:
    """The tiny recipe with a family of four sizes, two seeds each."""
    study = {"targets": targets(), "seeds": 2, "score": "validation/loss"}
    recipe_file.write_text(
        recipe_file.read_text()
        .replace("evaluation: {every: 12 steps", "evaluation: {every: 64 steps")
        .replace("checkpoints: {every: 4 steps}", "checkpoints: {every: 64 steps}")
        + f"study: {json.dumps(study)}\n"
    )
    return recipe_file


def family_of(study_file: Path, folder: Path) -> Family:
    return run_family(str(study_file), ("phases.1.length=2 steps",), folder)


def test_a_family_is_trained_fitted_and_not_trained_again(study_file: Path, tmp_path: Path) -> None:
    family = family_of(study_file, tmp_path)
    sizes = [member.size for member in family.members]
    assert [size.target["model.d_model"] for size in sizes] == list(WIDTHS)
    for member in family.members:
        flops = set()
        for result in member.results:
            recipe = load_recipe(str(result.folder)).recipe
            plan = plan_recipe(recipe)
            assert plan.shapes.parameters == member.size.parameters
            counted = training_flops(recipe.model, plan.shapes, plan.timeline)
            flops.add(counted["6P+attention"])
            last = metrics_of(result.folder)[-1]
            assert last["tokens"] == member.size.tokens
            assert last["validation/loss"] == result.score
        assert flops == {member.size.flops}
        assert [load_recipe(str(r.folder)).recipe.seed for r in member.results] == [3, 4]
        assert member.loss == pytest.approx(sum(r.score for r in member.results) / 2)
    points = tuple(Point(member.size.flops, member.loss) for member in family.members)
    assert family.fit.points == points
    assert family.fit.held_out.observed == points[-1].loss
    assert family.fit.judged["power"].points == points[:-1]
    basis = family.fit.basis
    assert basis is not None and basis.flops_convention == "6P+attention"
    halves = [math.log(a / b) ** 2 / 2 for a, b in (member.losses for member in family.members)]
    assert family.seed_std == pytest.approx(math.sqrt(sum(halves) / 4))
    plain = family.as_dict(tmp_path)
    assert plain["sizes"][0]["runs"][0].startswith("runs/d_model=8,")
    assert plain["warnings"] == []

    folders = [result.folder for member in family.members for result in member.results]
    assert [run.point for run in read_runs(folders[::2])] == [
        Point(member.size.flops, member.losses[0]) for member in family.members
    ]
    events = {folder: (folder / "events.jsonl").read_bytes() for folder in folders}
    shutil.rmtree(folders[3])
    again = family_of(study_file, tmp_path)
    assert again.fit.points == family.fit.points
    for folder in folders[:3] + folders[4:]:
        assert (folder / "events.jsonl").read_bytes() == events[folder]
    _runs_on_another_basis_are_refused(folders, tmp_path)


def _runs_on_another_basis_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folders[0], other)
    _as_if_trained_otherwise(other, lambda recipe: recipe["evaluation"].update(holdout=["code"]))
    with pytest.raises(UserError, match="do not belong to one family: other shards"):
        read_runs([folders[2], other])
    _as_if_trained_otherwise(other, lambda recipe: recipe["evaluation"].update(holdout="all"))
    assert read_runs([folders[2], other])[1].loss == read_runs([folders[0]])[0].loss
    with (other / "tokenizer" / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged"):
        read_runs([folders[2], other])
    whole = read_manifest(other / "tokenizer")
    write_manifest(other / "tokenizer", replace(whole, files=records_of(other / "tokenizer")))
    _as_if_trained_otherwise(other, lambda recipe: None)
    with pytest.raises(UserError, match="do not belong to one family: other tokenizers"):
        read_runs([folders[2], other])
    with pytest.raises(
        UserError, match="has no validation/accuracy in its last validation"
    ) as caught:
        read_runs(folders[:1], metric="validation/accuracy")
    assert "validation/code/bits_per_byte" in str(caught.value.allowed)
    assert read_runs(folders[:1], metric="validation/bits_per_byte")[0].basis.loss_unit == (
        "bits per byte"
    )
    with pytest.raises(UserError, match="not counted by '7P'"):
        read_runs(folders[:1], convention="7P")
    records = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(records[:-1]))
    with pytest.raises(UserError, match="is not finished: "):
        read_runs([other])
    with pytest.raises(UserError, match="is not a run folder"):
        read_runs([tmp_path])


def _as_if_trained_otherwise(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let the checkpoints of a run tell another recipe, and the tokenizer that lies beside them."""
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        change(state["recipe"])
        state["tokenizer"] = read_manifest(run / "tokenizer").digest
        (folder / "state.json").write_text(json.dumps(state))
        write_manifest(folder, replace(read_manifest(folder), files=records_of(folder)))


def test_a_family_without_a_law_is_refused_before_it_is_trained(
    study_file: Path, tmp_path: Path
) -> None:
    def refused(message: str, *overrides: str) -> None:
        with pytest.raises(UserError, match=message):
            run_family(str(study_file), overrides, tmp_path / "none")
        assert not (tmp_path / "none").exists()

    refused("0 sizes are too few", "study.targets=[]")
    refused("1 sizes are too few", "study.targets=[{seed: 1}, {seed: 2}, {seed: 3}]")
    same = ", ".join(f"{{model.d_ff: {width}}}" for width in (64, 66, 68, 70))
    refused("span 0", f"study.targets=[{same}]")
    short = "phases.1.length=2 steps"
    refused("held_out: 3 of 4", "study.held_out=3", short)
    refused("held_out: 0 of 4", "study.held_out=0", short)
    refused("d_model", "study.targets=[{model.d_modle: 8}]")
    refused("accuracy", "study.score=validation/accuracy", short)


def test_a_size_that_diverged_with_every_seed_ends_the_family(
    study_file: Path, tmp_path: Path
) -> None:
    wild = {**targets()[0], "parametrization.learning_rate": 1e30}
    with pytest.raises(RunError, match="all seeds of the size with"):
        run_family(
            str(study_file),
            ("phases.1.length=2 steps", "optimizer.clip_norm=none", "study.seeds=1"),
            tmp_path,
            targets=[wild, *targets()[1:]],
        )


def test_sizes_of_widths_keep_the_shape(recipe_file: Path) -> None:
    model = load_recipe(str(recipe_file)).recipe.model
    assert targets_of_widths(model, [16, 64]) == [
        {"model.d_model": 16, "model.n_heads": 1, "model.d_ff": 32, "model.n_layers": 1},
        {"model.d_model": 64, "model.n_heads": 4, "model.d_ff": 128, "model.n_layers": 4},
    ]
    (fixed,) = targets_of_widths(model, [48], depth="fixed")
    assert fixed == {"model.d_model": 48, "model.n_heads": 3, "model.d_ff": 96}
    sizes = plan_family(str(recipe_file), (), targets_of_widths(model, [64, 16, 32]))
    assert [size.target["model.d_model"] for size in sizes] == [16, 32, 64]
    whole = plan_recipe(load_recipe(str(recipe_file), ["model.vocab_size=320"]).recipe)
    assert sizes[1].parameters == whole.shapes.parameters
    with pytest.raises(UserError, match="width 40 is not a multiple of head_dim") as caught:
        targets_of_widths(model, [40])
    assert caught.value.allowed == "multiples of 16, such as 32 or 48"


def test_grouped_heads_stay_whole(recipe_file: Path) -> None:
    grouped = load_recipe(
        str(recipe_file), ["model.n_heads=4", "model.n_kv_heads=2", "model.d_model=64"]
    ).recipe.model
    (target,) = targets_of_widths(grouped, [96], depth="fixed")
    assert (target["model.n_heads"], target["model.n_kv_heads"]) == (6, 3)
    with pytest.raises(UserError, match="width 48"):
        targets_of_widths(grouped, [48])
