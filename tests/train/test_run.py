"""A run in this process: phases, micro-batches, guards, what may change on resume."""

import json
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import RunError, SetupError, UserError
from feldspar.plan.summary import effective_table, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.runtime.run_folder import RunFolder
from feldspar.train.language_model import require_memory
from feldspar.train.lifecycle import check_folder
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.train.conftest import losses_of, metrics_of


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), list(overrides)), out)
    return losses_of(out)


def test_metrics_of_every_step(recipe_file: Path, tmp_path: Path) -> None:
    run(recipe_file, tmp_path / "run")
    records = metrics_of(tmp_path / "run")
    assert [record["step"] for record in records] == list(range(1, 37))
    assert [record["tokens"] for record in records] == [128 * n for n in range(1, 37)]
    assert [record["phase"] for record in records] == ["short"] * 24 + ["long"] * 12
    assert records[-1]["learning_rate"] == pytest.approx(1e-3)
    assert records[2]["learning_rate"] > records[0]["learning_rate"] > 0
    assert all(record["tokens_per_second"] > 0 for record in records)
    assert {"validation/loss", "validation/prose/bits_per_byte"} <= set(records[11])
    assert records[-1]["train/loss"] < records[0]["train/loss"] - 0.5


def test_the_table_is_stored_with_the_run(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    lengths = ["phases.0.length=1 steps", "phases.1.length=1 steps"]
    run(recipe_file, out, *lengths)
    tables = json.loads((out / "parametrization.json").read_text())
    planned = plan_recipe(load_recipe(str(recipe_file), lengths).recipe)
    expected = effective_table(planned.table, planned.recipe.optimizer)
    assert tables == {"short": expected, "long": expected}


def test_the_same_recipe_gives_the_same_losses(recipe_file: Path, tmp_path: Path) -> None:
    assert run(recipe_file, tmp_path / "a") == run(recipe_file, tmp_path / "b")


@pytest.mark.parametrize("sequences", [1, 3])
def test_accumulation_changes_only_rounding(
    recipe_file: Path, tmp_path: Path, sequences: int
) -> None:
    whole = run(recipe_file, tmp_path / "whole")
    split = run(recipe_file, tmp_path / "split", f"runtime.micro_batch_sequences={sequences}")
    # float32 sums of 128 tokens in another order, 36 updates.
    assert split == pytest.approx(whole, rel=2e-5)


def test_recomputed_activations_change_nothing(recipe_file: Path, tmp_path: Path) -> None:
    stored = run(recipe_file, tmp_path / "stored")
    recomputed = run(recipe_file, tmp_path / "again", "runtime.activation_memory=recompute")
    assert recomputed == pytest.approx(stored, rel=1e-6)


def test_dropout_resumes_on_the_same_stream(recipe_file: Path, tmp_path: Path) -> None:
    whole = run(recipe_file, tmp_path / "whole", "model.dropout=0.1")
    assert whole != run(recipe_file, tmp_path / "none")
    part = tmp_path / "part"
    run(recipe_file, part, "model.dropout=0.1")
    newest = sorted((part / "checkpoints").iterdir())[-1]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert run(recipe_file, part, "model.dropout=0.1") == whole


def test_a_finished_run_says_so(recipe_file: Path, tmp_path: Path) -> None:
    first = run(recipe_file, tmp_path / "run")
    again = train(load_recipe(str(recipe_file)), tmp_path / "run")
    assert again.position == 36 * 128
    assert losses_of(tmp_path / "run") == first


def test_a_longer_last_phase_continues_a_finished_run(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, "schedule.learning_rate=1")
    run(recipe_file, out, "schedule.learning_rate=1", "phases.1.length=16 steps")
    assert len(losses_of(out)) == 40
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert any("phases.1.length" in change for change in events[-1]["changes"])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.d_ff=96", "model.d_ff"),
        ("seed=4", "seed"),
        ("parametrization.learning_rate=2e-2", "parametrization.learning_rate"),
        ("phases.0.batch.sequences=16", "phases.0.batch.sequences"),
    ],
)
def test_a_recipe_changed_under_the_run_is_refused(
    recipe_file: Path, tmp_path: Path, override: str, key: str
) -> None:
    out = tmp_path / "run"
    run(recipe_file, out)
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=f"has changed since the run began: {key}"):
        train(load_recipe(str(recipe_file), [override]), out)
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    whole = run(recipe_file, out)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    file = newest / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert run(recipe_file, out) == whole


def test_a_loss_that_is_not_finite_updates_nothing(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError, match="not finite; nothing was updated"):
        run(
            recipe_file,
            out,
            "parametrization.learning_rate=1e38",
            "optimizer.clip_norm=none",
            "checkpoints.every=1 steps",
        )
    kept = load_run(out)
    assert all(torch.isfinite(tensor).all() for tensor in kept.decoder.parameters())
    refused = json.loads((out / "bad_batches.jsonl").read_text().splitlines()[0])
    assert refused["batch"][0].startswith("short:")


def test_only_what_a_phase_trains_moves(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(
        recipe_file,
        out,
        "phases.1.trainable=[embedding, output, position]",
        "checkpoints.keep.last=20",
    )
    at_switch = load_run(out, str(24 * 128)).decoder.state_dict()
    end = load_run(out).decoder.state_dict()
    for name, tensor in end.items():
        moved = not torch.equal(tensor, at_switch[name])
        assert moved == ("embedding" in name), name


def test_a_glob_that_matches_nothing_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"phases\.0\.trainable: 'block\.\*' matches no parameter"):
        run(recipe_file, tmp_path / "run", "phases.0.trainable=[block.*]")


def test_fresh_moments_start_from_zero(recipe_file: Path, tmp_path: Path) -> None:
    kept = run(recipe_file, tmp_path / "keep")
    fresh = run(recipe_file, tmp_path / "fresh", "phases.1.optimizer_state=fresh")
    assert fresh[:25] == kept[:25]
    assert fresh[25:] != kept[25:]


def test_a_run_starts_from_another_runs_weights(
    recipe_file: Path, tmp_path: Path, news: list[str]
) -> None:
    first = tmp_path / "first"
    losses = run(recipe_file, first)
    start = f"start_from={{type: run, path: {first}}}"
    continued = run(recipe_file, tmp_path / "second", start)
    assert continued[0] < losses[0] - 0.5
    assert any("reads them from the beginning" in line for line in news)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vocab_size=200", "fewer than the 300 tokens"),
        ("tokenizer={type: train_bpe, vocab_size: 310}", "do not match"),
        ("shards.path=/nowhere", "feldspar tokens build"),
        ("phases.0.mixture={prose: 0.5, cod: 0.5}", "did you mean 'code'"),
        ("phases.0={name: all, length: 9000 steps, batch: {sequences: 8}}", "allow_repeat"),
    ],
)
def test_what_does_not_fit_the_shards_is_refused(
    recipe_file: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(load_recipe(str(recipe_file), [override]), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_with_other_things_is_left_alone(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("precious")
    with pytest.raises(UserError, match="something that is not a run"):
        train(load_recipe(str(recipe_file)), out, overwrite=True)
    assert (out / "chapter.txt").read_text() == "precious"


def test_a_run_that_ended_before_its_recipe_was_written_is_begun_again(
    recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with RunFolder(out).lock():
        (out / "tokenizer").mkdir()
    check_folder(out)


def test_a_model_that_no_memory_holds_is_refused_before_it_is_made(recipe_file: Path) -> None:
    planned = plan_recipe(load_recipe(str(recipe_file)).recipe).memory()
    require_memory(planned, torch.device("cpu"))
    with pytest.raises(SetupError, match="not enough memory: weights, gradients and moments"):
        require_memory(planned, torch.device("cpu"), limit=1000)
