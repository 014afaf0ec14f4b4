"""Fine-tuning on pairs with a soft prompt: resuming, plain fine-tuning, what may not change."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.model.layers import SOFT_PROMPT
from feldspar.recipe.load import load_recipe
from feldspar.runtime.distributed import Distribution
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import plan_loaded
from feldspar.train.examples import open_examples
from feldspar.train.lifecycle import open_run
from feldspar.train.load import load_run
from feldspar.train.pairs import labelled_phase
from feldspar.train.run import Inputs, begin_training, train
from tests.train.conftest import losses_of, metrics_of
from tests.train.test_distributed import torchrun

TEMPLATE = (
    "{source: 'question: {question}\\n', target: 'it is {labels}.', "
    "labels: {field: answer, values: ['yes', 'no', maybe]}}"
)
WORDS = ("one", "two", "three", "four", "five", "six", "seven")
PAIRS = """\
  - {name: tune, length: 5 epochs, context_length: 64, batch: {sequences: 2}, sparsity: dense,
      optimizer_state: fresh, optimizer: {betas: [0.9, 0.98], clip_norm: none},
      learning_rate: [{from: 1e-5, to: 1e-3, over: 2 steps}, {shape: inverse_sqrt, over: rest}],
      weight_decay: 0.01, SOFT loss: {on: target},
      data: {type: pairs, path: pairs.jsonl, template: TEMPLATE}}
"""
SOFT = "soft_prompt: {length: 3, initialisation: vocabulary},"
SPARSE = "phases.0.sparsity={type: static, sparsity: 0.5}"
SHORT = [
    "phases.0.length=2 steps",
    "phases.1.length=1 steps",
    "checkpoints.every=100% of run",
    "evaluation.every=100% of run",
]


def write_pairs(path: Path, count: int = 20) -> None:
    """Questions whose answer depends on their number."""
    answers = ("yes", "no", "maybe")
    records = [
        {"question": " ".join(WORDS[: 1 + n % 7]) + f" {n}", "answer": answers[n % 3]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def paired_recipe(recipe_file: Path) -> Path:
    """The tiny recipe with a third phase, on pairs that lie beside it."""
    write_pairs(recipe_file.parent / "pairs.jsonl")
    text = recipe_file.read_text().replace(
        "checkpoints:", PAIRS.replace("SOFT", SOFT).replace("TEMPLATE", TEMPLATE) + "checkpoints:"
    )
    text = text.replace("max_sequence_length: 32", "max_sequence_length: 64")
    recipe_file.write_text(text)
    return recipe_file


def test_resumed_at_any_checkpoint_it_trains_the_same(paired_recipe: Path, tmp_path: Path) -> None:
    often = ["checkpoints.every=3 steps", "checkpoints.keep.last=99"]
    loaded = load_recipe(str(paired_recipe), [*SHORT, SPARSE, *often])
    whole = tmp_path / "whole"
    train(loaded, whole)
    expected = losses_of(whole)
    weights = dict(load_run(whole).decoder.named_parameters())
    assert [record["phase"] for record in metrics_of(whole)][3:] == ["tune"] * (len(expected) - 3)
    names = sorted(folder.name for folder in (whole / "checkpoints").iterdir())
    # The end of the phase before, and the midst of epochs.
    for last in names[1:-1:2]:
        out = tmp_path / f"from-{last}"
        shutil.copytree(whole, out)
        for later in names[names.index(last) + 1 :]:
            shutil.rmtree(out / "checkpoints" / later)
        train(loaded, out)
        assert losses_of(out) == expected
        again = load_run(out).decoder.named_parameters()
        assert all(torch.equal(weights[name], parameter) for name, parameter in again)


def trained(recipe: Path, out: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights after a short run."""
    train(load_recipe(str(recipe), [*SHORT, *overrides]), out)
    return dict(load_run(out).decoder.named_parameters())


def test_no_vectors_are_plain_fine_tuning_bit_for_bit(paired_recipe: Path, tmp_path: Path) -> None:
    steps = "phases.2.length=4 steps"
    none = trained(paired_recipe, tmp_path / "none", steps, "phases.2.soft_prompt=null")
    zero = trained(paired_recipe, tmp_path / "zero", steps, "phases.2.soft_prompt.length=0")
    assert none.keys() == zero.keys()
    assert all(torch.equal(none[name], zero[name]) for name in none)
    some = trained(paired_recipe, tmp_path / "some", steps)
    assert some.keys() - none.keys() == {SOFT_PROMPT}
    # Until the phase begins nothing knows of the vectors; then they make a difference.
    losses = [losses_of(tmp_path / name) for name in ("none", "some")]
    assert losses[0][:3] == losses[1][:3] and losses[0][3:] != losses[1][3:]


def test_vectors_begin_as_trained_rows_and_are_trained_without_decay(
    paired_recipe: Path, tmp_path: Path
) -> None:
    still = "phases.2.learning_rate=[{to: 0, over: rest, shape: hold}]"
    few = "phases.2.length=4 steps"
    weights = trained(paired_recipe, tmp_path / "still", still, few)
    begin, table = weights[SOFT_PROMPT], weights["token_embedding.weight"]
    chosen = [(table == vector).all(dim=1).nonzero().flatten().tolist() for vector in begin]
    assert len({row for [row] in chosen}) == 3 and max(row for [row] in chosen) < 300
    # A frozen table does not move although all else is trained, and would if it were decayed.
    decayed = "phases.2.weight_decay=50"
    frozen = "phases.2.trainable=[embedding, output, position, hidden, norm, bias]"
    assert torch.equal(trained(paired_recipe, tmp_path / "f", frozen, few)[SOFT_PROMPT], begin)
    moved = trained(paired_recipe, tmp_path / "moved", decayed, few)
    far = (moved[SOFT_PROMPT] - begin).abs().max()
    # At most the rate a step or so; decay of 50 would take most of each entry.
    assert 0 < far < 1.5 * 4 * 1e-3
    assert moved["token_embedding.weight"].abs().mean() < 0.9 * table.abs().mean()
    only = trained(paired_recipe, tmp_path / "only", "phases.2.trainable=[prompt]", few)
    assert torch.equal(only["token_embedding.weight"], table)
    assert not torch.equal(only[SOFT_PROMPT], begin)


def test_a_run_that_starts_from_another_draws_vectors_of_its_own(
    paired_recipe: Path, tmp_path: Path
) -> None:
    short = [*SHORT, "phases.2.soft_prompt=null"]
    train(load_recipe(str(paired_recipe), short), tmp_path / "first")
    text = paired_recipe.read_text()
    head, tail = text.split("phases:\n")
    alone = tmp_path / "tiny.yaml"
    phase = tail[tail.index("  - {name: tune") :].replace("sparsity: dense,", "")
    start = f"start_from: {{type: run, path: {tmp_path / 'first'}}}\n"
    alone.write_text(f"{head}{start}phases:\n{phase}")
    still = "phases.0.learning_rate=[{to: 0, over: rest, shape: hold}]"
    train(load_recipe(str(alone), [still, "phases.0.length=1 steps"]), tmp_path / "second")
    first = load_run(tmp_path / "first").decoder.token_embedding.weight
    vectors = dict(load_run(tmp_path / "second").decoder.named_parameters())[SOFT_PROMPT]
    assert all((first == vector).all(dim=1).sum() == 1 for vector in vectors)
    train(load_recipe(str(alone), ["phases.0.length=4 steps"]), tmp_path / "third")
    text = alone.read_text().replace(str(tmp_path / "first"), str(tmp_path / "third"))
    alone.write_text(text)
    train(load_recipe(str(alone), [still, "phases.0.length=1 steps"]), tmp_path / "fourth")
    carried, again = (
        dict(load_run(tmp_path / name).decoder.named_parameters())[SOFT_PROMPT]
        for name in ("third", "fourth")
    )
    assert torch.equal(carried, again) and not torch.equal(carried, vectors)


def test_what_the_loss_is_divided_by(paired_recipe: Path, tmp_path: Path) -> None:
    rate = "phases.2.learning_rate=[{to: 1e-3, over: rest, shape: hold}]"
    one = ["phases.2.length=1 steps", "phases.2.batch.sequences=1", rate]
    trained(paired_recipe, tmp_path / "valid", *one)
    trained(paired_recipe, tmp_path / "every", *one, "phases.2.loss.average=all_positions")
    valid, every = (losses_of(tmp_path / name)[-1] for name in ("valid", "every"))
    recipe = load_recipe(str(paired_recipe), [*SHORT, *one]).recipe
    reader = open_examples(recipe, ShardSet.open(recipe.shards.path))[2]
    batch = reader.read(0, 1)
    assert batch.label_mask.shape == (1, 64)
    assert every * 64 == pytest.approx(valid * batch.label_mask.sum(), rel=1e-6)


def test_the_optimizer_of_a_phase(paired_recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(paired_recipe), [*SHORT, "phases.2.optimizer.epsilon=1e-6"])
    assert loaded.recipe.optimizer_of(2).clip_norm == "none"
    inputs, distribution = Inputs.open(loaded), Distribution.start(loaded.recipe.runtime)
    with open_run(inputs.loaded, inputs.plan.timeline, tmp_path / "run", overwrite=False) as run:
        trainer = begin_training(inputs, run, distribution)
    trainer.enter_phase(inputs.plan.timeline.phases[2])
    groups = [group for part, _ in trainer.optimizer._parts for group in part.param_groups]
    assert {group["betas"] for group in groups} == {(0.9, 0.98)}
    assert {group["eps"] for group in groups} == {1e-6}
    assert trainer.optimizer._clip_norm is None


def test_epochs_of_pairs_are_planned(paired_recipe: Path) -> None:
    loaded = load_recipe(str(paired_recipe), SHORT)
    planned = plan_loaded(loaded)
    rows = open_examples(loaded.recipe, ShardSet.open(loaded.recipe.shards.path))[2].n_rows
    phase = planned.timeline.phases[2]
    assert rows > 2 and phase.steps == 5 * rows // 2
    record = planned.summary()["phases"][2]["pairs"]
    assert record["tokens"] == 64 * rows and record["epochs"] == pytest.approx(5, abs=0.5)
    assert planned.summary()["data"]["phases"][2]["sources"] == {}
    assert (
        planned.trained[2] == planned.shapes.rows == (*planned.trained[1], planned.shapes.rows[-1])
    )
    (paired_recipe.parent / "pairs.jsonl").unlink()
    with pytest.raises(UserError, match=r"phases.2.length: 5 epochs needs the number of pairs"):
        plan_loaded(loaded)
    declared = plan_loaded(load_recipe(str(paired_recipe), [*SHORT, "phases.2.data.tokens=640"]))
    assert declared.timeline.phases[2].steps == 5 * 640 // 128


def test_other_pairs_are_not_resumed(paired_recipe: Path, tmp_path: Path) -> None:
    trained(paired_recipe, tmp_path / "run", "phases.2.length=2 steps")
    path = paired_recipe.parent / "pairs.jsonl"
    before = path.read_text()
    path.write_text(before.replace("maybe", "yes"))
    with pytest.raises(UserError, match=r"phases.2.data: the examples are not those"):
        trained(paired_recipe, tmp_path / "run", "phases.2.length=4 steps")
    path.unlink()
    path.with_name("moved.jsonl").write_text(before)
    moved = f"phases.2.data.path={path.with_name('moved.jsonl')}"
    trained(paired_recipe, tmp_path / "run", "phases.2.length=4 steps", moved)
    assert len(losses_of(tmp_path / "run")) == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases.0.soft_prompt={length: 3}"], "phases.0.soft_prompt: it works with pairs only"),
        (["phases.0.loss={on: target}"], "phases.0.loss.on: target works with pairs and messages"),
        (["phases.2.documents=mask"], "phases.2.documents: it applies to shards only"),
        (["phases.2.mixture={prose: 1}"], "phases.2.mixture: it applies to shards only"),
        (["phases.2.optimizer_state=keep"], "phases.2.optimizer_state: the optimizer differs"),
        (["phases.2.soft_prompt.length=64"], "64 vectors leave no room in a context of 64"),
        (["phases.2.soft_prompt.length=-1"], "phases.2.soft_prompt.length"),
        (["noise_scale={}"], "noise_scale: it cannot be measured on pairs, which phases.2 reads"),
        (["phases.2.context_length=10"], "do not fit in 10 tokens"),
        (["phases.2.data.path=nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["phases.2.data.template=pubmed"], "no template is named 'pubmed'; shipped"),
        (["phases.2.data.template.labels.values=[a, b]"], "is not a label of the template"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    paired_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    message: str,
) -> None:
    out = tmp_path / "run"
    assert run_with(["train", str(paired_recipe), "--out", str(out), *SHORT, *overrides]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in told and "Traceback" not in told
    assert not (out / "checkpoints").exists()


def test_long_pairs_lose_the_beginning_of_their_source(paired_recipe: Path, tmp_path: Path) -> None:
    cut = ["phases.2.context_length=16", "phases.2.data.truncate=source"]
    trained(paired_recipe, tmp_path / "run", "phases.2.length=2 steps", *cut)
    assert metrics_of(tmp_path / "run")[-1]["phase"] == "tune"


def test_labels_of_pairs_from_the_command_line(
    paired_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(paired_recipe, tmp_path / "run", "phases.2.length=2 steps")
    pairs = paired_recipe.parent / "pairs.jsonl"
    command = ["--quiet", "evaluate", str(tmp_path / "run"), "--pairs", str(pairs), "--baselines"]
    assert run_with([*command, "--json", "--limit", "9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 9 and 0 <= found["by_likelihood"]["accuracy"] <= 1
    assert found["baselines"]["most frequent label"]["accuracy"] == 3 / 9
    assert run_with(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("20 pairs, ") and lines[-1].startswith("bag of words")
    assert run_with([*command, "--infilling"]) == 2
    no_pairs = load_recipe(str(paired_recipe), SHORT).recipe
    plain = no_pairs.model_copy(update={"phases": no_pairs.phases[:2]})
    with pytest.raises(UserError, match="no phase of pairs with labels"):
        labelled_phase(plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_reach_the_losses_of_one(
    paired_recipe: Path, tmp_path: Path, kind: str
) -> None:
    few = [*SHORT, "phases.2.length=4 steps", SPARSE]
    train(load_recipe(str(paired_recipe), few), tmp_path / "one")
    distribution = f"runtime.distribution={kind}"
    result = torchrun(paired_recipe, tmp_path / kind, *few, distribution)
    assert result.returncode == 0, result.stderr
    expected = losses_of(tmp_path / "one")
    assert losses_of(tmp_path / kind) == pytest.approx(expected, rel=1e-5)
    one, two = (
        dict(load_run(tmp_path / name).decoder.named_parameters()) for name in ("one", kind)
    )
    torch.testing.assert_close(one[SOFT_PROMPT], two[SOFT_PROMPT], rtol=1e-3, atol=1e-6)


def test_lora_on_pairs_leaves_the_vectors_to_trainable(paired_recipe: Path, tmp_path: Path) -> None:
    few = ["phases.2.length=4 steps", "phases.2.lora={rank: 2, alpha: 4}"]
    frozen = trained(paired_recipe, tmp_path / "frozen", *few)
    prompted = trained(paired_recipe, tmp_path / "both", *few, "phases.2.trainable=[prompt]")
    table = "token_embedding.weight"
    assert torch.equal(frozen[table], prompted[table])
    assert not torch.equal(frozen[SOFT_PROMPT], prompted[SOFT_PROMPT])
    rows = [(frozen[table] == vector).all(dim=1).any() for vector in frozen[SOFT_PROMPT]]
    assert all(rows), "the vectors are still the rows that they began as"
