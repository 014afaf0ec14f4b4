"""LoRA as a setting of a phase: what is trained, merging, exact resume, other runs, processes."""

import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import activate, add_low_rank, low_rank_names
from feldspar.noise_scale.tracker import instrument
from feldspar.parametrization.application import apply
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.runtime.checkpoint import MODEL, OPTIMIZER, Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.train.conftest import Command, losses_of, metrics_of
from tests.train.sparsity.conftest import KEEP_ALL, SPARSE
from tests.train.test_distributed import torchrun

RANK, ALPHA = 3, 6.0
LORA = f"{{rank: {RANK}, alpha: {ALPHA}}}"
SECOND = f"phases.1.lora={LORA}"
FIRST = f"phases.0.lora={LORA}"


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), [KEEP_ALL, *overrides]), out)
    return losses_of(out)


def planned(recipe: Path, *overrides: str) -> Plan:
    return plan_recipe(load_recipe(str(recipe), list(overrides)).recipe)


def checkpoints(out: Path) -> list[Checkpoint]:
    return CheckpointStore(out / "checkpoints").all()


def tensors(checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
    files = checkpoint.files_of(part)
    return dict(files)


def is_lora(name: str) -> bool:
    return ".lora_a." in name or ".lora_b." in name


def merged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """W + (alpha / rank) B A for each matrix, for updates of whole matrices."""
    found = {name: tensor for name, tensor in state.items() if not is_lora(name)}
    for name in state:
        if name.endswith(".lora_a.weight"):
            module = name.removesuffix(".lora_a.weight")
            update = state[f"{module}.lora_b.weight"] @ state[name]
            found[f"{module}.weight"] = found[f"{module}.weight"] + ALPHA / RANK * update
    return found


def test_only_the_matrices_of_lora_are_trained(recipe_file: Path, tmp_path: Path) -> None:
    losses = run(recipe_file, tmp_path / "run", SECOND, "parametrization.learning_rate=0.05")
    states = {int(one.folder.name): tensors(one, MODEL) for one in checkpoints(tmp_path / "run")}
    moments = {int(o.folder.name): tensors(o, OPTIMIZER) for o in checkpoints(tmp_path / "run")}
    border, *_, last = (place for place in states if place >= 24 * 16 * 8)
    assert not any(map(is_lora, states[border])), "the first phase has no LoRA"
    assert {name for name in states[last] if not is_lora(name)} == states[border].keys()
    assert all(torch.equal(states[last][name], value) for name, value in states[border].items())
    assert len(states[last]) - len(states[border]) == 2 * 4 * 2
    assert all(is_lora(name) for name in moments[last])
    assert len(moments[last]) == 3 * 16
    assert sum(losses[-4:]) < sum(losses[24:28])


def test_a_run_that_ends_in_lora_is_loaded_merged(recipe_file: Path, tmp_path: Path) -> None:
    run(recipe_file, tmp_path / "run", SECOND)
    found = dict(load_run(tmp_path / "run").decoder.named_parameters())
    expected = merged(tensors(checkpoints(tmp_path / "run")[-1], MODEL))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_the_update_is_added_where_a_phase_without_lora_begins(
    recipe_file: Path, tmp_path: Path
) -> None:
    """The step after the border starts from the merged weights: at a rate of 0 they are all."""
    still = "phases.1.learning_rate=[{to: 0, over: rest}]"
    run(recipe_file, tmp_path / "run", FIRST, still)
    first, second = (tensors(checkpoints(tmp_path / "run")[place], MODEL) for place in (5, -1))
    assert any(map(is_lora, first))
    assert not any(map(is_lora, second))
    for name, value in merged(first).items():
        assert torch.equal(second[name], value), name


@pytest.mark.parametrize(
    "phases", [[FIRST], [SECOND], [FIRST, SECOND], [FIRST, "phases.0.lora.dropout=0.2"]]
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    recipe_file: Path, tmp_path: Path, phases: list[str]
) -> None:
    """From a checkpoint inside the first phase, at the border, and inside the second phase."""
    whole = run(recipe_file, tmp_path / "whole", *phases)
    for kept in (3, 6, 7):
        part = Path(shutil.copytree(tmp_path / "whole", tmp_path / f"part{kept}"))
        for one in checkpoints(part)[kept:]:
            shutil.rmtree(one.folder)
        assert run(recipe_file, part, *phases) == whole
        for group in (MODEL, OPTIMIZER):
            first, second = (tensors(checkpoints(o)[-1], group) for o in (tmp_path / "whole", part))
            assert first.keys() == second.keys()
            assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_two_phases_with_lora_carry_the_update_on(recipe_file: Path, tmp_path: Path) -> None:
    """Its moments count the steps of both phases."""
    run(recipe_file, tmp_path / "run", FIRST, SECOND)
    places = checkpoints(tmp_path / "run")
    before, after = tensors(places[5], OPTIMIZER), tensors(places[6], OPTIMIZER)
    steps = {name: float(value) for name, value in after.items() if name.startswith("step/")}
    assert before.keys() == after.keys()
    assert set(steps.values()) == {28.0}


def test_a_later_update_has_other_rows(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text()
    phase = "  - {name: third, length: 4 steps, batch: {sequences: 4}, optimizer_state: keep}\n"
    recipe_file.write_text(text.replace("checkpoints:", f"{phase}checkpoints:"))
    third = f"phases.2.lora={LORA}"
    still = ["phases.1.length=4 steps", "phases.0.length=4 steps"]
    run(recipe_file, tmp_path / "run", FIRST, third, *still, "parametrization.learning_rate=1e-9")
    first, _, last = (tensors(one, MODEL) for one in checkpoints(tmp_path / "run"))
    for name in filter(is_lora, first):
        if ".lora_a." in name:
            # Numbers drawn anew are independent: their mean product is 0 up to 5 standard errors.
            pair = [each[name].flatten().double() for each in (first, last)]
            cosine = float(torch.nn.functional.cosine_similarity(*pair, dim=0))
            assert abs(cosine) < 5 / pair[0].numel() ** 0.5


def test_another_run_starts_from_the_merged_weights(recipe_file: Path, tmp_path: Path) -> None:
    run(recipe_file, tmp_path / "run", SECOND)
    start = f"start_from={{type: run, path: {tmp_path / 'run'}}}"
    still = ["phases.0.learning_rate=[{to: 0, over: rest}]", "phases.0.length=1 steps"]
    run(recipe_file, tmp_path / "next", start, *still, "phases.1.length=1 steps")
    expected = dict(load_run(tmp_path / "run").decoder.named_parameters())
    found = tensors(checkpoints(tmp_path / "next")[0], MODEL)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_trainable_adds_to_lora(recipe_file: Path) -> None:
    trained = planned(recipe_file, SECOND, "phases.1.trainable=[norm]").trained[1]
    assert {row.role.value for row in trained} == {"norm", "lora_a", "lora_b"}


@pytest.mark.parametrize(
    ("targets", "rows_of_b"),
    [
        ("[query, value]", {"attention.query_key_value": 64}),
        ("[key]", {"attention.query_key_value": 32}),
        ("[attention_output]", {"attention.output": 32}),
        (
            "[feed_forward_input, feed_forward_output]",
            {"feed_forward.input": 64, "feed_forward.output": 32},
        ),
        ("['blocks.*.attention.*']", {"attention.query_key_value": 96, "attention.output": 32}),
    ],
)
def test_targets_are_named_by_their_part_or_by_a_glob(
    recipe_file: Path, targets: str, rows_of_b: dict[str, int]
) -> None:
    trained = planned(recipe_file, SECOND, f"phases.1.lora.targets={targets}").trained[1]
    found = {row.name: row.shape for row in trained if row.role == "lora_b"}
    assert found == {
        f"blocks.{layer}.{name}.lora_b.weight": (rows, RANK)
        for layer in range(2)
        for name, rows in rows_of_b.items()
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases.1.lora.targets=[norm]"], "lora.targets: 'norm' matches no matrix"),
        (["phases.1.lora.rank=33"], "lora.rank: 33 is more than a side of blocks.0."),
        (["phases.1.lora.rank=0"], "phases.1.lora.rank"),
        (["phases.1.lora.alpha=0"], "phases.1.lora.alpha"),
        (["phases.1.lora.targets=[]"], "phases.1.lora.targets"),
        ([f"{FIRST}", "phases.0.lora.rank=2"], "phases.1.lora: all phases that have lora share"),
        ([SPARSE], "phases.1.lora.targets: blocks.0.attention.query_key_value.weight is masked"),
        (["phases.1.trainable=[hidden]"], "phases.1.trainable: blocks.0.attention.query_key_value"),
        (["phases.1.trainable=[lora_a]"], "phases.1.trainable: 'lora_a' matches no parameter"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    recipe_file: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as refusal:
        planned(recipe_file, SECOND, *overrides)
    assert message in f"{refusal.value.what} {refusal.value.where}"


def test_targets_without_masks_may_stand_beside_masked_matrices(
    recipe_file: Path, tmp_path: Path
) -> None:
    masked = SPARSE.replace("0.75", "0.75, targets: [feed_forward]")
    attention = "phases.1.lora.targets=[query, key, value, attention_output]"
    run(recipe_file, tmp_path / "run", masked, SECOND, attention)
    load_run(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("phase", [FIRST, SECOND])
def test_two_processes_reach_the_loss_of_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, kind: str, phase: str
) -> None:
    changes = [phase, "parametrization.type=mup"]
    one = feldspar("train", recipe_file, *changes, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    out = tmp_path / kind
    result = torchrun(recipe_file, out, *changes, f"runtime.distribution={kind}")
    assert result.returncode == 0, result.stderr
    assert losses_of(out) == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)
    first, second = (tensors(checkpoints(o)[-1], MODEL) for o in (tmp_path / "one", out))
    assert first.keys() == second.keys()


@pytest.mark.parametrize("targets", ["[hidden]", "[query, value]"])
def test_each_examples_gradient_is_measured(recipe_file: Path, targets: str) -> None:
    """Against the gradients of single sequences, for LoRA's matrices and for norms beside them."""
    plan = planned(recipe_file, FIRST, f"phases.0.lora.targets={targets}")
    decoder = Decoder(plan.recipe.model)
    assert plan.recipe.lora is not None
    add_low_rank(decoder, plan.recipe.lora)
    activate(decoder, True)
    apply(decoder, plan.table, seed=1)
    chance = torch.Generator().manual_seed(2)
    trained = low_rank_names(decoder) | {"final_norm.weight", "blocks.0.attention.output.bias"}
    for name, parameter in decoder.double().named_parameters():
        parameter.requires_grad_(name in trained)
        if ".lora_b." in name:
            parameter.data.normal_(generator=chance)
    tokens = torch.randint(0, 300, (3, 16), generator=chance)
    expected: dict[str, list[float]] = {name: [] for name in trained}
    for sequence in tokens.split(1):
        decoder.zero_grad()
        decoder.loss(sequence, sequence)[0].backward()
        for name, parameter in decoder.named_parameters():
            if name in trained:
                assert parameter.grad is not None
                expected[name].append(float(parameter.grad.square().sum()))
    decoder.zero_grad()
    tracker = instrument(decoder, "all", per_example=True)
    with tracker.microbatch():
        decoder.loss(tokens, tokens)[0].backward()
    found = tracker.finish(3).per_example
    assert found is not None and set(found) >= trained
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-9), name


def test_the_noise_scale_of_a_run_with_lora(recipe_file: Path, tmp_path: Path) -> None:
    measured = ["noise_scale={coverage: all}", "phases.0.length=4 steps", "phases.1.length=4 steps"]
    plain = run(recipe_file, tmp_path / "plain", FIRST, *measured[1:])
    assert run(recipe_file, tmp_path / "run", FIRST, *measured) == pytest.approx(plain, rel=1e-5)
    assert all("noise_scale/total" in record for record in metrics_of(tmp_path / "run"))
    with pytest.raises(UserError, match="trains no norm layer"):
        planned(recipe_file, FIRST, "noise_scale={coverage: norm}")


@pytest.mark.parametrize(
    "changed", ["runtime.micro_batch_sequences=2", "runtime.activation_memory=recompute"]
)
def test_the_way_of_computing_changes_only_rounding(
    recipe_file: Path, tmp_path: Path, changed: str
) -> None:
    short = [FIRST, "phases.0.length=8 steps", "phases.1.length=4 steps"]
    plain = run(recipe_file, tmp_path / "plain", *short)
    assert run(recipe_file, tmp_path / "other", *short, changed) == pytest.approx(plain, rel=2e-5)


def test_muon_trains_the_whole_matrices_and_adamw_the_updates(
    recipe_file: Path, tmp_path: Path
) -> None:
    run(recipe_file, tmp_path / "run", SECOND, "optimizer={type: muon}")
    first, last = (tensors(checkpoints(tmp_path / "run")[n], OPTIMIZER) for n in (0, -1))
    assert any(name.startswith("momentum_buffer/") for name in first)
    assert {name.split("/")[0] for name in last} == {"step", "exp_avg", "exp_avg_sq"}
