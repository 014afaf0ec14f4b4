"""A run that starts from another with fewer tokens: new rows, and training of them alone."""

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

import feldspar
from feldspar.core.errors import RunError, UserError
from feldspar.core.rows import ParameterRow, Role
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.parametrization.application import ParameterGroup
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.optimizer import OptimizerSettings
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings
from feldspar.release.release_run import release_run
from feldspar.release.verify import verify_files_of
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.tokenizer.contract import decompositions
from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.load import find_checkpoint, load_run
from feldspar.train.optimizer import Optimizer
from feldspar.train.run import train
from tests.tokens.conftest import some_texts, write_documents
from tests.train.conftest import RECIPE, losses_of, metrics_of
from tests.train.test_distributed import torchrun

BASE, NEW = 300, 20
MATRICES = ("token_embedding.weight", "output.weight")
UNTIED = "model.tied_embeddings=false"
ADAPTED = """
schema_version: 1
name: adapted
seed: 3
start_from: {{type: run, path: {base}}}
adapt: {{embeddings: {{initialisation: subword_mean}}, pad_rows_to: 16}}
shards: {{path: {shards}}}
model: {{n_layers: 2, d_model: 32, n_heads: 2, d_ff: 64, max_sequence_length: 32,
  tied_embeddings: false}}
parametrization: {{type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 1e-2,
  init_std: 0.05}}
optimizer: {{weight_decay: 0.1}}
phases:
  - {{name: embeddings, length: 20 steps, batch: {{sequences: 4}}, allow_repeat: true,
      trainable: {{parameters: [embedding, output], rows: new}}}}
  - {{name: all, length: 4 steps, batch: {{sequences: 4}}, allow_repeat: true,
      optimizer_state: fresh}}
checkpoints: {{every: 4 steps, keep: {{last: 20}}}}
evaluation: {{every: 10 steps, validation_sequences: 4}}
runtime: {{trackers: [], threads: 1}}
"""
STAGE = 20 * 4 * 32
"""Tokens of the first phase."""


def extended(base: TextTokenizer, folder: Path) -> Path:
    """The base with merges of its most frequent pairs, in a folder."""
    parts = json.loads(base.to_json())
    vocabulary, merges = parts["model"]["vocab"], parts["model"]["merges"]
    special = {token["id"] for token in parts["added_tokens"]}
    texts = [ids.tolist() for ids in base.encode_documents(some_texts(1, 120))]
    counts = Counter(pair for ids in texts for pair in pairwise(ids))
    for pair, _ in counts.most_common():
        first, second = (str(base.piece(token)) for token in pair)
        if first + second not in vocabulary and not special & {*pair} and "\u0120" not in second:
            vocabulary[first + second] = len(vocabulary)
            merges.append([first, second])
        if len(vocabulary) == BASE + NEW:
            break
    TextTokenizer(Tokenizer.from_str(json.dumps(parts)), base.end_of_document).save(folder)
    Extension(base.digest, BASE, NEW, "continued", "test").save(folder)
    return folder


@pytest.fixture(scope="module")
def base_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of an untied model, its rows padded to 320."""
    root = tmp_path_factory.mktemp("base")
    (root / "base.yaml").write_text(RECIPE.format(shards=shards_folder))
    train(load_recipe(str(root / "base.yaml"), [UNTIED]), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def new_shards(base_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents in the extended tokenizer."""
    root = tmp_path_factory.mktemp("extended")
    (root / "tokenizer").mkdir()
    tokenizer = extended(TextTokenizer.load(base_run / "tokenizer"), root / "tokenizer")
    texts = {
        "train": {"prose": some_texts(1, 120), "code": some_texts(2, 60)},
        "validation": {"prose": some_texts(3, 20), "code": some_texts(4, 20)},
    }
    documents = write_documents(root / "documents", texts)
    settings = ShardSettings(path=root / "shards")
    build_shards(documents, HuggingFaceTokenizer(path=str(tokenizer)), settings, seed=0, workers=1)
    return root / "shards"


@pytest.fixture
def recipe(base_run: Path, new_shards: Path, tmp_path: Path) -> Path:
    path = tmp_path / "adapted.yaml"
    path.write_text(ADAPTED.format(base=base_run, shards=new_shards))
    return path


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), list(overrides)), out)
    return losses_of(out)


def weights(run: Path, tokens: int) -> dict[str, Tensor]:
    return find_checkpoint(run, str(tokens)).read_model()


def moments(run: Path, tokens: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the optimizer's moments."""
    stored = load_file(find_checkpoint(run, str(tokens)).folder / "optimizer.safetensors")
    return {name: tuple(tensor.shape) for name, tensor in stored.items() if "exp" in name}


def test_new_rows_begin_and_train_alone(recipe: Path, base_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe, out)
    old = weights(base_run, 36 * 128)
    at_switch, end = weights(out, STAGE), weights(out, STAGE + 4 * 128)
    base = TextTokenizer.load(base_run / "tokenizer")
    pieces = decompositions(base, TextTokenizer.load(out / "tokenizer"))
    for name, tensor in at_switch.items():
        if name not in MATRICES:
            assert torch.equal(tensor, old[name]), name
            assert not torch.equal(end[name], tensor), "the second phase trains everything"
            continue
        assert tensor.shape == (320, 32)
        assert torch.equal(tensor[:BASE], old[name][:BASE])
        begun = torch.stack([old[name][ids].mean(0) for ids in pieces])
        moved = (tensor[BASE:] - begun).abs()
        assert (moved.amax(1) > 1e-3).sum() >= 15, "rows of tokens that the text uses"
        assert not torch.equal(end[name][:BASE], tensor[:BASE])
    shape = (NEW, 32)
    keys = ("exp_avg", "exp_avg_sq")
    assert moments(out, STAGE) == {f"{key}/{name}": shape for key in keys for name in MATRICES}
    assert len(moments(out, STAGE + 4 * 128)) == 2 * len(old)


def test_what_was_done_is_written_down(recipe: Path, base_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe, out, "phases.0.length=1 steps", "phases.1.length=1 steps")
    record = json.loads((out / "adaptation.json").read_text())
    assert (record["initialisation"], record["old_rows"]) == ("subword_mean", BASE)
    assert (record["new_rows"], record["padding_rows"]) == (NEW, 0)
    base = TextTokenizer.load(base_run / "tokenizer")
    manifest = json.loads((find_checkpoint(base_run, "last").folder / "manifest.json").read_text())
    assert record["origins"]["base_tokenizer"] == base.digest
    assert record["origins"]["base"] == manifest["digest"]
    old = weights(base_run, 36 * 128)["output.weight"][:BASE]
    assert record["norms"]["output.weight"]["old"]["mean"] == pytest.approx(
        float(old.norm(dim=1).mean())
    )
    # Both sources are measured from the start, in the new tokens.
    assert {"validation/prose/bits_per_byte", "validation/code/bits_per_byte"} <= set(
        metrics_of(out)[-1]
    )


def test_a_release_carries_it(recipe: Path, tmp_path: Path) -> None:
    out, release = tmp_path / "run", tmp_path / "release"
    run(recipe, out, "phases.0.length=1 steps", "phases.1.length=1 steps")
    release_run(out, release, overwrite=False)
    assert verify_files_of(release) == []
    assert (release / "adaptation.json").read_bytes() == (out / "adaptation.json").read_bytes()
    assert Extension.load(release) == Extension.load(out / "tokenizer")


def test_a_tied_model_trains_its_one_matrix(
    shards_folder: Path, recipe: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    (tmp_path / "base.yaml").write_text(RECIPE.format(shards=shards_folder))
    lengths = ["phases.0.length=4 steps", "phases.1.length=4 steps"]
    run(tmp_path / "base.yaml", base, *lengths)
    out = tmp_path / "run"
    tied = "model.tied_embeddings=true"
    run(recipe, out, tied, f"start_from.path={base}", "phases.1.length=1 steps")
    old, new = weights(base, 8 * 128), weights(out, STAGE)
    assert set(old) == set(new) and "output.weight" not in new
    for name, tensor in new.items():
        assert torch.equal(tensor[:BASE], old[name][:BASE]), name
    assert moments(out, STAGE).keys() == {
        f"{key}/token_embedding.weight" for key in ("exp_avg", "exp_avg_sq")
    }


def test_interrupted_and_resumed_bit_for_bit(recipe: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    losses = run(recipe, whole)
    shutil.copytree(whole, part)
    for folder in (part / "checkpoints").iterdir():
        if int(folder.name) > STAGE // 2:
            shutil.rmtree(folder)
    assert run(recipe, part) == losses
    last = STAGE + 4 * 128
    for name, tensor in weights(whole, last).items():
        assert torch.equal(tensor, weights(part, last)[name])


def test_accumulation_changes_only_rounding(recipe: Path, tmp_path: Path) -> None:
    whole = run(recipe, tmp_path / "whole")
    split = run(recipe, tmp_path / "split", "runtime.micro_batch_sequences=1")
    assert split == pytest.approx(whole, rel=2e-5)


def test_the_update_knows_the_trained_rows_only() -> None:
    """Norm, clipping, decay and moments, against AdamW on a tensor of these rows alone."""
    chance = torch.Generator().manual_seed(1)
    whole = nn.Parameter(torch.randn(7, 3, generator=chance))
    before = whole.detach().clone()
    settings = OptimizerSettings(clip_norm=0.5, weight_decay=0.1)
    rule = settings.rule(ParameterRow("w", Role.EMBEDDING, (7, 3)))
    group = ParameterGroup(("w",), (whole,), 1.0, 1.0, 1.0, rule)
    optimizer = Optimizer([group], settings, first_rows={"w": 4})
    alone = nn.Parameter(before[4:].clone())
    reference = torch.optim.AdamW([alone], lr=0.1, betas=settings.betas, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(7, 3, generator=chance)
        whole.grad, alone.grad = gradient.clone(), gradient[4:].clone()
        norm = optimizer.gradient_norm()
        assert float(norm) == pytest.approx(float(gradient[4:].norm()))
        optimizer.set_rates(0.1, 0.1)
        optimizer.step(norm)
        optimizer.zero_gradients()
        assert whole.grad is None
        nn.utils.clip_grad_norm_([alone], 0.5)
        reference.step()
    assert torch.equal(whole[:4], before[:4])
    torch.testing.assert_close(whole[4:].detach(), alone.detach())
    assert optimizer.state()["exp_avg/w"].shape == (3, 3)


def test_a_plain_folder_is_adapted_too(
    recipe: Path, base_run: Path, new_shards: Path, tmp_path: Path
) -> None:
    loaded = load_run(base_run)
    folder = tmp_path / "plain"
    export_model(
        loaded.decoder.state_dict(),
        ModelDescription(loaded.recipe.model, loaded.recipe.parametrization),
        loaded.tokenizer_folder,
        folder,
    )
    start = f"start_from={{type: huggingface, path: {folder}}}"
    short = ["phases.0.length=2 steps", "phases.1.length=1 steps"]
    from_folder = run(recipe, tmp_path / "folder", start, *short)
    from_run = run(recipe, tmp_path / "run", *short)
    assert from_folder == pytest.approx(from_run, rel=1e-5)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged: missing"):
        run(recipe, tmp_path / "other", start)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        run(recipe, tmp_path / "other", start)


def test_a_donor_lends_its_vectors(recipe: Path, tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    short = ["phases.0.length=2 steps", "phases.1.length=2 steps"]
    run(recipe, donor, *short)
    out = tmp_path / "run"
    given = f"adapt.embeddings.donor={{type: run, path: {donor}}}"
    run(recipe, out, "adapt.embeddings.initialisation=similar_topk", given, *short)
    record = json.loads((out / "adaptation.json").read_text())
    assert (record["shared_tokens"], record["fallback_tokens"]) == (BASE, 0)
    assert record["donor"] == str(donor) and len(record["origins"]["donor"]) == 64


def test_a_model_folder_is_adapted_by_itself(
    recipe: Path, base_run: Path, new_shards: Path, tmp_path: Path
) -> None:
    """The folder begins a run as the section `adapt` of its recipe would."""
    base, adapted = tmp_path / "base", tmp_path / "adapted"
    feldspar.export(base_run, base)
    tokenizer = new_shards / "tokenizer"
    done = feldspar.adapt(base, adapted, tokenizer=tokenizer, pad_rows_to=16)
    assert done["row_sources"] == {"pieces": NEW} and done["old_rows"] == BASE
    lines = [json.loads(line) for line in (adapted / "new_rows.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(BASE, BASE + NEW))
    assert all("".join(line["old_tokens"]) == line["text"] for line in lines)
    short = ["phases.0.length=2 steps", "phases.1.length=1 steps"]
    starts = [f"start_from={{type: huggingface, path: {folder}}}" for folder in (base, adapted)]
    inside = run(recipe, tmp_path / "inside", starts[0], *short)
    assert run(recipe, tmp_path / "before", starts[1], "adapt=null", *short) == inside
    for options, message in (
        ({"initialisation": "focus"}, "focus needs a donor"),
        ({"initialisation": "best"}, "'best'"),
        ({"tokenizer": base_run / "tokenizer", "donor": base}, "does not use a donor"),
    ):
        with pytest.raises(UserError, match=message):
            feldspar.adapt(base, tmp_path / "other", **{"tokenizer": tokenizer} | options)
    with pytest.raises(UserError, match="is a run folder"):
        feldspar.adapt(base_run, tmp_path / "other", tokenizer=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_the_same_rows(recipe: Path, tmp_path: Path, kind: str) -> None:
    one = run(recipe, tmp_path / "one")
    result = torchrun(recipe, tmp_path / "two", f"runtime.distribution={kind}")
    assert result.returncode == 0, result.stderr
    assert losses_of(tmp_path / "two") == pytest.approx(one, rel=1e-5)
    before, after = weights(tmp_path / "one", STAGE), weights(tmp_path / "two", STAGE)
    for name in MATRICES:
        assert torch.equal(before[name][:BASE], after[name][:BASE])
    for path in (tmp_path / "two" / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > STAGE // 2:
            shutil.rmtree(path)
    # One process goes on with the moments that two have written.
    assert run(recipe, tmp_path / "two") == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["noise_scale={}"], "measured on whole parameters"),
        (["phases.0.trainable.parameters=[embedding, norm]"], "rows: new trains rows of tokens"),
        (["phases.1.optimizer_state=keep"], "this phase trains different rows"),
        (
            ["model.vocab_size=321"],
            "adapt.pad_rows_to: model.vocab_size 321 is not a multiple of 16",
        ),
        (["start_from=scratch"], "it needs a model to adapt"),
        (
            ["model.tied_embeddings=true", "phases.0.trainable=[embedding]"],
            "the head is tied, embedding and output are one tensor",
        ),
        (
            ["model.tied_embeddings=true", "adapt.embeddings.match_norm=true"],
            "adapt.embeddings.match_norm: the head is tied to the embedding",
        ),
        (["adapt=null"], "the shards' tokenizer has 20 tokens more than that of"),
    ],
)
def test_what_does_not_fit_is_one_line(
    recipe: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(recipe, tmp_path / "run", *overrides)
    assert message in error.value.what + str(error.value.found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "breaks C6: its normalizer differs"),
        ({"merges": "in front"}, "breaks C4: its first merges are not the base's"),
    ],
)
def test_a_tokenizer_that_changes_old_text_is_refused(
    base_run: Path, new_shards: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    base, other = tmp_path / "base", tmp_path / "tokenizer"
    feldspar.export(base_run, base)
    shutil.copytree(new_shards / "tokenizer", other)
    parts = json.loads((other / "tokenizer.json").read_text())
    if changed.pop("merges", None):
        merges = parts["model"]["merges"]
        parts["model"]["merges"] = merges[-NEW:] + merges[:-NEW]
    (other / "tokenizer.json").write_text(json.dumps(parts | changed))
    with pytest.raises(UserError, match=message):
        feldspar.adapt(base, tmp_path / "adapted", tokenizer=other)


def test_new_rows_need_an_extended_tokenizer(
    recipe: Path, shards_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="but the shards' tokenizer extends no other"):
        run(recipe, tmp_path / "run", f"shards.path={shards_folder}")


def test_an_extended_model_on_the_old_tokens(
    recipe: Path, shards_folder: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    run(recipe, first, "phases.0.length=1 steps", "phases.1.length=1 steps")
    with pytest.raises(UserError, match=r"id 300 was .* and is None"):
        run(
            recipe,
            tmp_path / "run",
            "adapt=null",
            f"start_from.path={first}",
            f"shards.path={shards_folder}",
            "phases.0.trainable=all",
            "model.vocab_size=320",
        )


def test_the_plan_counts_what_is_trained(recipe: Path) -> None:
    planned = plan_recipe(load_recipe(str(recipe), ["model.vocab_size=320"]).recipe)
    phases = planned.summary()["phases"]
    assert phases[0]["trainable_parameters"] == 2 * 320 * 32
    assert phases[1]["trainable_parameters"] == planned.shapes.parameters


def test_new_rows_train_beside_lora(recipe: Path, tmp_path: Path) -> None:
    out, rank = tmp_path / "run", 2
    run(recipe, out, f"phases.0.lora={{rank: {rank}, alpha: 4, targets: [value]}}")
    begin, end = weights(out, 4 * 128), weights(out, STAGE)
    for name, tensor in end.items():
        if name in MATRICES:
            assert torch.equal(tensor[:BASE], begin[name][:BASE])
            assert not torch.equal(tensor[BASE:], begin[name][BASE:])
        else:
            assert torch.equal(tensor, begin[name]) == (".lora_" not in name), name
    shapes = {name.removeprefix("exp_avg/"): shape for name, shape in moments(out, STAGE).items()}
    assert shapes["output.weight"] == (NEW, 32)
    assert shapes["blocks.0.attention.query_key_value.lora_b.weight"] == (32, rank)
    assert not any(".lora_" in name for name in weights(out, STAGE + 4 * 128))
