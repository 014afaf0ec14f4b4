"""Masks through real runs: zeros in weights and moments, saved, carried, dropped, resumed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import read_manifest, records_of, write_manifest
from feldspar.model import Decoder
from feldspar.parametrization import apply, parameter_groups
from feldspar.plan import Plan, plan_recipe
from feldspar.recipe import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.runtime import Checkpoint, CheckpointStore
from feldspar.sparsity import Masks, digest_of_masks
from feldspar.train import load_run, open_shards, train
from feldspar.train.data import open_training_data
from feldspar.train.optimizer import Optimizer
from feldspar.train.task import LanguageModelLoss
from tests.train.conftest import RECIPE, losses_of, metrics_of

BASE = (
    "parametrization.type=supar",
    "phases.0.length=8 steps",
    "phases.1.length=4 steps",
    "evaluation.every=100% of run",
)
SPARSE = "phases.0.sparsity={type: static, sparsity: 0.75}"
DENSE_LATER = ("phases.1.sparsity=dense", "phases.1.optimizer_state=fresh")
KEEP_ALL = "checkpoints.keep.last=20"
SWITCH = 8
"""Steps of the first phase; every step has 128 tokens, every fourth writes a checkpoint."""


def recipe_of(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), [*BASE, *overrides]).recipe


def run(path: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(path), [*BASE, *overrides]), out)
    return losses_of(out)


@pytest.fixture(scope="module")
def sparse_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sparse run with all of its checkpoints; to be copied before it is touched."""
    root = tmp_path_factory.mktemp("sparse")
    path = root / "tiny.yaml"
    path.write_text(RECIPE.format(shards=shards_folder))
    run(path, root / "run", SPARSE, KEEP_ALL)
    return root / "run"


@pytest.fixture
def copy(sparse_run: Path, tmp_path: Path) -> Path:
    """A copy of the sparse run."""
    return Path(shutil.copytree(sparse_run, tmp_path / "copy"))


def drawn(path: Path, *overrides: str) -> Masks:
    recipe = recipe_of(path, *overrides)
    return Masks.draw(recipe.sparsity(0), plan_recipe(recipe).shapes.rows, recipe.seed)


def checkpoint(out: Path, step: int | None = None) -> Checkpoint:
    found = CheckpointStore(out / "checkpoints").all()
    return found[-1] if step is None else next(c for c in found if c.tokens == 128 * step)


def assert_zeros(tensors: dict[str, Tensor], masks: Masks, prefix: str = "") -> None:
    assert masks.tensors
    for name, mask in masks.tensors.items():
        tensor = tensors[prefix + name]
        assert bool((tensor[~mask] == 0).all()), name
        assert int((tensor != 0).sum()) > 0.9 * int(mask.sum()), name


def test_zeros_stay_zeros_in_weights_and_moments(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, SPARSE, "optimizer.weight_decay=0.5", "optimizer.clip_norm=0.2")
    assert losses[-1] < losses[0]
    assert min(record["gradient_norm"] for record in metrics_of(out)) > 0.2, "always clipped"
    masks = drawn(recipe_file, SPARSE)
    assert_zeros(checkpoint(out).read_model(), masks)
    moments = load_file(checkpoint(out).folder / "optimizer.safetensors")
    assert_zeros(moments, masks, "exp_avg/")
    assert_zeros(moments, masks, "exp_avg_sq/")


def test_what_a_loaded_run_knows(recipe_file: Path, sparse_run: Path) -> None:
    loaded, masks = load_run(sparse_run), drawn(recipe_file, SPARSE)
    assert digest_of_masks(loaded.masks) == digest_of_masks(masks)
    assert loaded.masks.settings == masks.settings and loaded.masks.seed == 3
    assert_zeros(dict(loaded.decoder.named_parameters()), loaded.masks)
    started = json.loads((sparse_run / "events.jsonl").read_text().splitlines()[0])["masks"]
    assert started["sha256"] == digest_of_masks(masks)
    assert started["kept"] == started["entries"] / 4 == 2 * 2048
    assert started["units"] == 2 * (64 + 32)
    packed = load_file(checkpoint(sparse_run).folder / "tensors.safetensors")
    assert sum(bits.numel() for bits in packed.values()) == started["entries"] / 8


def test_no_sparsity_changes_no_bit(recipe_file: Path, tmp_path: Path) -> None:
    dense = run(recipe_file, tmp_path / "dense")
    assert dense == run(recipe_file, tmp_path / "zero", SPARSE.replace("0.75", "0"))
    assert load_run(tmp_path / "zero").masks.tensors == {}
    assert not (checkpoint(tmp_path / "dense").folder / "tensors.safetensors").exists()


Update = Callable[[dict[str, Tensor], float, float], None]


def reparametrised(plan: Plan, masks: Masks, make_update: Callable[[Decoder], Update]) -> Decoder:
    """A run whose forward pass multiplies dense weights by their masks; the chain rule does the
    rest. Returns the decoder with the dense weights."""
    recipe = plan.recipe
    shards = open_shards(recipe)
    reader = open_training_data(recipe, plan.timeline, shards).reader
    decoder = Decoder(recipe.model)
    apply(decoder, plan.table, recipe.seed)
    module = LanguageModelLoss(decoder, shards.vocab_size)
    update = make_update(decoder)
    tokens = 0
    while (step := plan.timeline.next_step(tokens)) is not None:
        last = step.first_sequence + step.sequences
        batch = torch.from_numpy(reader.read(step.phase.index, step.first_sequence, last).tokens)
        inputs, labels = batch[:, :-1].long(), batch[:, 1:].long()
        used = {
            f"decoder.{name}": parameter * masks.tensors[name]
            if name in masks.tensors
            else parameter
            for name, parameter in decoder.named_parameters()
        }
        loss = functional_call(module, used, (inputs, labels)) / labels.numel()
        decoder.zero_grad()
        loss.backward()
        gradients = {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}
        update(gradients, step.learning_rate, step.weight_decay)
        tokens = step.tokens_after
    return decoder


def by_hand(plan: Plan, decoder: Decoder) -> Update:
    """AdamW and clipping as their papers write them."""
    settings, table = plan.recipe.optimizer, plan.table
    assert settings.clip_norm != "none"
    limit = settings.clip_norm
    beta1, beta2 = settings.betas
    parameters = dict(decoder.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    steps = 0

    @torch.no_grad()
    def update(gradients: dict[str, Tensor], rate: float, decay: float) -> None:
        nonlocal steps
        steps += 1
        norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, limit / (float(norm) + 1e-6))
        for name, gradient in gradients.items():
            entry = table.entry(name)
            own = rate * entry.learning_rate_multiplier
            parameters[name] *= 1 - own * decay * entry.weight_decay_multiplier
            first[name] = beta1 * first[name] + (1 - beta1) * scale * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * (scale * gradient) ** 2
            mean, square = first[name] / (1 - beta1**steps), second[name] / (1 - beta2**steps)
            root = square.sqrt() + settings.epsilon * entry.epsilon_multiplier
            parameters[name] -= own * mean / root

    return update


def by_our_optimizer(plan: Plan, decoder: Decoder) -> Update:
    optimizer = Optimizer(parameter_groups(decoder, plan.table), plan.recipe.optimizer)

    def update(gradients: dict[str, Tensor], rate: float, decay: float) -> None:
        optimizer.set_rates(rate, decay)
        optimizer.step(optimizer.gradient_norm())

    return update


REFERENCE = (
    SPARSE,
    "phases.0.batch.sequences=4",
    "phases.1.documents=concatenate",
    "optimizer.clip_norm=0.3",
    "optimizer.epsilon=1e-5",
)


def test_masked_gradients_are_those_of_masked_weights(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, *REFERENCE)
    assert min(record["gradient_norm"] for record in metrics_of(out)) > 0.3, "always clipped"
    found = dict(load_run(out).decoder.named_parameters())
    plan = plan_recipe(recipe_of(recipe_file, *REFERENCE))
    masks = drawn(recipe_file, *REFERENCE)
    for reference in (by_hand, by_our_optimizer):
        decoder = reparametrised(plan, masks, partial(reference, plan))
        expected = dict(decoder.named_parameters())
        for name, parameter in found.items():
            wanted = expected[name]
            if name in masks.tensors:
                assert bool((wanted[~masks.tensors[name]] != 0).all()), "dense under the mask"
                wanted = wanted * masks.tensors[name]
            if reference is by_our_optimizer:
                assert torch.equal(parameter, wanted), name
            else:
                # float32 after 12 updates of up to 2e-2 each, rounded in another order.
                assert (parameter - wanted).abs().max() < 1e-5, name


def test_accumulation_changes_only_rounding(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split"
    losses = run(recipe_file, split, SPARSE, "runtime.micro_batch_sequences=3")
    assert losses == pytest.approx(losses_of(sparse_run), rel=2e-5)
    assert_zeros(checkpoint(split).read_model(), drawn(recipe_file, SPARSE))


def test_bfloat16_keeps_zeros(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "runtime.precision=bfloat16")
    assert_zeros(checkpoint(out).read_model(), drawn(recipe_file, SPARSE))


@pytest.mark.slow
def test_compiled_blocks_keep_zeros(recipe_file: Path, sparse_run: Path, tmp_path: Path) -> None:
    compiled = run(recipe_file, tmp_path / "compiled", SPARSE, "runtime.compile=true")
    assert compiled == pytest.approx(losses_of(sparse_run), rel=1e-4)
    assert_zeros(checkpoint(tmp_path / "compiled").read_model(), drawn(recipe_file, SPARSE))


def forget_newest(out: Path) -> None:
    shutil.rmtree(checkpoint(out).folder)


def test_a_resumed_run_takes_the_masks_of_its_checkpoint(
    recipe_file: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = losses_of(copy)
    forget_newest(copy)

    def refuse(*arguments: object) -> None:
        raise AssertionError("masks are drawn again")

    monkeypatch.setattr(Masks, "draw", refuse)
    assert run(recipe_file, copy, SPARSE, KEEP_ALL) == losses


def test_another_sparsity_is_refused_on_resume(recipe_file: Path, copy: Path) -> None:
    with pytest.raises(UserError, match=r"phases\.0\.sparsity\.sparsity: 0\.75 -> 0\.5"):
        run(recipe_file, copy, SPARSE.replace("0.75", "0.5"), KEEP_ALL)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def sign_again(folder: Path) -> None:
    manifest = read_manifest(folder, "checkpoint")
    write_manifest(folder, replace(manifest, files=records_of(folder)))


def test_a_flipped_mask_bit_is_refused(recipe_file: Path, copy: Path) -> None:
    losses = losses_of(copy)
    flip_a_bit(checkpoint(copy).folder / "tensors.safetensors")
    assert "tensors.safetensors" in checkpoint(copy).problems()[0]
    assert run(recipe_file, copy, SPARSE, KEEP_ALL) == losses  # from the checkpoint before
    flip_a_bit(checkpoint(copy).folder / "tensors.safetensors")
    sign_again(checkpoint(copy).folder)
    for use in (lambda: load_run(copy), lambda: run(recipe_file, copy, SPARSE, KEEP_ALL)):
        with pytest.raises(RunError, match=r"the mask of blocks\..* is not the one that was saved"):
            use()


def test_a_weight_under_a_mask_is_refused(recipe_file: Path, copy: Path, tmp_path: Path) -> None:
    name = "blocks.1.feed_forward.input.weight"
    file = checkpoint(copy).folder / "model.safetensors"
    tensors = load_file(file)
    zeros = (~drawn(recipe_file, SPARSE).tensors[name]).nonzero()
    tensors[name][tuple(zeros[5])] = 1e-30
    save_file(tensors, file)
    sign_again(checkpoint(copy).folder)
    start = f"start_from={{type: run, path: {copy}}}"
    for use in (
        lambda: load_run(copy),
        lambda: run(recipe_file, copy, SPARSE, KEEP_ALL),
        lambda: run(recipe_file, tmp_path / "next", start),
    ):
        with pytest.raises(RunError, match=f"{name} holds 1 weights that its mask says are zero"):
            use()


def test_a_sparse_run_without_masks_is_refused(copy: Path) -> None:
    folder = checkpoint(copy).folder
    (folder / "tensors.safetensors").unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["sparsity"]
    (folder / "state.json").write_text(json.dumps(state))
    sign_again(folder)
    with pytest.raises(RunError, match="holds no masks, though its phase is sparse"):
        load_run(copy)


def test_a_dense_phase_revives_entries_from_zero(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(
        recipe_file,
        out,
        SPARSE,
        *DENSE_LATER,
        KEEP_ALL,
        "checkpoints.every=1 steps",
        "optimizer.epsilon=1e-20",
    )
    masks = drawn(recipe_file, SPARSE)
    before, after = (checkpoint(out, step).read_model() for step in (SWITCH, SWITCH + 1))
    assert_zeros(before, masks)
    rate = metrics_of(out)[SWITCH]["learning_rate"]
    for name, mask in masks.tensors.items():
        # Fresh moments move every entry by the rate itself: twice as wide as the base, dense.
        share = 1 / 2
        moved = after[name][~mask].abs()
        assert moved.max().item() == pytest.approx(rate * share, rel=1e-4)
        assert moved[moved > 0].min().item() == pytest.approx(rate * share, rel=1e-4)
        assert (moved > 0).float().mean() > 0.95
    assert load_run(out).masks.tensors == {}
    assert load_run(out, str(128 * SWITCH)).masks.tensors.keys() == masks.tensors.keys()
    whole = losses_of(out)
    for _ in range(2):
        forget_newest(out)
    assert run(recipe_file, out, SPARSE, *DENSE_LATER, KEEP_ALL, "optimizer.epsilon=1e-20") == whole


def test_the_sparse_phase_has_the_rates_of_its_density(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "phases.0.length=1 steps", "optimizer.epsilon=1e-20", KEEP_ALL)
    masks = drawn(recipe_file, SPARSE)
    recipe = recipe_of(recipe_file, SPARSE)
    decoder = Decoder(recipe.model)
    apply(decoder, plan_recipe(recipe).table, recipe.seed)
    start, after = dict(decoder.named_parameters()), checkpoint(out, 1).read_model()
    rate = metrics_of(out)[0]["learning_rate"]
    for name, mask in masks.tensors.items():
        decayed = start[name] * (1 - 2 * rate * 0.1)  # 2 = 1 / (width 2, density 1/4)
        moved = (after[name] - decayed)[mask].abs()
        assert moved.max().item() == pytest.approx(2 * rate, rel=1e-3)


def test_frozen_matrices_are_masked_and_stay_so(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "phases.0.trainable=[embedding, position]", KEEP_ALL)
    masks = drawn(recipe_file, SPARSE)
    at_switch, end = checkpoint(out, SWITCH).read_model(), checkpoint(out).read_model()
    assert_zeros(at_switch, masks)
    assert_zeros(end, masks)
    for name in masks.tensors:
        assert not torch.equal(at_switch[name], end[name]), "trained in the second phase"


def test_a_run_starts_with_the_masks_of_another(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    start = f"start_from={{type: run, path: {sparse_run}}}"
    assert run(recipe_file, second, start, "seed=9")[0] < losses_of(sparse_run)[0] - 0.2
    masks = drawn(recipe_file, SPARSE)
    carried = load_run(second)
    assert digest_of_masks(carried.masks) == digest_of_masks(masks)
    assert carried.masks.seed == 3, "what they were drawn from"
    assert carried.recipe.sparsity(1) == masks.settings, "the resolved recipe says so"
    assert_zeros(checkpoint(second).read_model(), masks)
    table = plan_recipe(carried.recipe).table
    rates = {entry.learning_rate_multiplier for entry in table.tensors}
    assert max(rates) == 2, "the table follows the carried density"
    # The same again is no change; nor is a run that starts from one that was started so.
    forget_newest(second)
    run(recipe_file, second, start, "seed=9")
    third = tmp_path / "third"
    run(recipe_file, third, f"start_from={{type: run, path: {second}}}", SPARSE)
    assert digest_of_masks(load_run(third).masks) == digest_of_masks(masks)


def test_a_run_starts_dense_from_a_sparse_one(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    start = f"start_from={{type: run, path: {sparse_run}}}"
    run(recipe_file, tmp_path / "dense", start, "phases.0.sparsity=dense")
    assert load_run(tmp_path / "dense").masks.tensors == {}
    with pytest.raises(UserError, match=r"phases\.0\.sparsity: .* has other masks"):
        run(recipe_file, tmp_path / "other", start, SPARSE.replace("0.75", "0.5"))
    with pytest.raises(UserError, match=r"phases\.1\.optimizer_state: the masks are dropped here"):
        run(recipe_file, tmp_path / "kept", start, "phases.1.sparsity=dense")
    # Dense weights that a sparse phase starts from are masked.
    again = f"start_from={{type: run, path: {tmp_path / 'dense'}}}"
    run(recipe_file, tmp_path / "again", again, SPARSE)
    assert_zeros(checkpoint(tmp_path / "again").read_model(), drawn(recipe_file, SPARSE))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SPARSE, DENSE_LATER[0]], r"phases\.1\.optimizer_state: the masks are dropped here"),
        (
            [SPARSE, DENSE_LATER[0], "phases.1.optimizer_state=keep"],
            r"phases\.1\.optimizer_state: the masks are dropped here; it must be fresh",
        ),
        ([SPARSE.replace("0", "1", 1)], r"phases\.1\.sparsity: masks are drawn before"),
        (
            [SPARSE, SPARSE.replace("0", "1", 1).replace("0.75", "0.5")],
            r"phases\.1\.sparsity: masks are drawn before the first phase",
        ),
        ([SPARSE.replace("0.75", "75")], r"phases\.0\.sparsity\.sparsity: .* write 0\.75"),
    ],
)
def test_what_a_recipe_may_not_ask_for(
    recipe_file: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(str(recipe_file), overrides)


def test_the_same_masks_may_be_said_again(recipe_file: Path) -> None:
    recipe_of(recipe_file, SPARSE, SPARSE.replace("0", "1", 1))


def test_warnings_and_dead_units_are_said_at_the_start(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from feldspar.cli.main import run_with

    sparse = SPARSE.replace("0.75", "0.95")
    out = tmp_path / "run"
    overrides = [sparse, "phases.0.length=2 steps", "phases.1.length=2 steps", "--out", str(out)]
    assert run_with(["train", str(recipe_file), *overrides]) == 0
    said = capsys.readouterr().err
    assert said.count("keeps 1.6 inputs on average, and 8 of 8 masked matrices keep fewer") == 1
    started = json.loads((out / "events.jsonl").read_text().splitlines()[0])["masks"]
    assert started["dead_units"] > 0
    assert f"{started['dead_units']} of 192 units are dead" in said
    assert run_with(["train", str(recipe_file), *overrides]) == 0
    assert "inputs on average" not in capsys.readouterr().err


def test_the_plan_in_text_and_json(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from feldspar.cli.main import run_with

    sparse = SPARSE.replace("0.75", "0.9")
    arguments = ["plan", str(recipe_file), sparse, *DENSE_LATER, "--table"]
    assert run_with([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    zeros = 2 * sum(int(0.9 * n + 0.5) for n in (96 * 32, 32 * 32, 64 * 32, 32 * 64))
    assert values["parameters"]["active"] == values["parameters"]["total"] - zeros
    assert [phase["active_parameters"] for phase in values["phases"]] == [
        values["parameters"]["active"],
        values["parameters"]["total"],
    ]
    assert "keeps 3.2 inputs" in values["warnings"][0]
    assert {row["density"] for row in values["tensors"] if row["role"] == "hidden"} == {0.1}
    assert run_with(arguments) == 0
    text = capsys.readouterr().out
    assert f"{values['parameters']['active']:,} active" in text
    assert f"{values['flops']['ledger']:.4g} by ledger (FLOPs not realised" in text
    assert "warning     phases.0.sparsity: a neuron of" in text
    (row,) = [line for line in text.splitlines() if "blocks.0.feed_forward.input.weight" in line]
    assert row.split()[3] == "0.1"
