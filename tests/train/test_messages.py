"""Fine-tuning on messages: exact resume, the template goes with the model, LoRA, refusals."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import feldspar
from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.huggingface.import_folder import import_model
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import plan_loaded
from feldspar.train.examples import open_examples
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.evaluate.chat_model import write_chat_model
from tests.tokens.chat_templates import CHATML, turn
from tests.tokens.conftest import some_texts, write_documents
from tests.train.conftest import losses_of, metrics_of

RECIPE = """
schema_version: 1
name: talk
seed: 3
shards: {{path: {shards}}}
model: {{n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, vocab_size: 320, max_sequence_length: 64}}
parametrization: {{type: sp, learning_rate: 1e-2}}
phases:
  - {{name: read, length: 2 steps, batch: {{sequences: 2}}, allow_repeat: true}}
  - {{name: talk, length: 6 epochs, batch: {{sequences: 2}}, optimizer_state: fresh,
      loss: {{on: target}}, data: {{type: messages, path: talks.jsonl, template: chat.jinja}}}}
checkpoints: {{every: 100% of run}}
evaluation: {{every: 100% of run, validation_sequences: 2}}
runtime: {{trackers: [], threads: 1, device: cpu}}
"""


def write_talks(path: Path, count: int = 12) -> None:
    """Counts, each with a question before it."""
    talks = [
        [
            turn("user", f"count {n}"),
            turn("assistant", "one " * (n % 3 + 1)),
            turn("user", "more"),
            turn("assistant", "two " * (n % 2 + 1)),
        ][: 2 + 2 * (n % 2)]
        for n in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))


@pytest.fixture(scope="session")
def chat_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat-data")
    texts = {"train": {"prose": some_texts(1, 60)}, "validation": {"prose": some_texts(3, 10)}}
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = TrainBpe(vocab_size=300, special_tokens=special)
    documents = write_documents(root / "documents", texts)
    build_shards(documents, tokenizer, ShardSettings(path=root / "shards"), seed=0, workers=1)
    return root / "shards"


@pytest.fixture
def talking(chat_shards: Path, tmp_path: Path) -> Path:
    """A recipe whose second phase reads messages."""
    write_talks(tmp_path / "talks.jsonl")
    (tmp_path / "chat.jinja").write_text(CHATML)
    (tmp_path / "talk.yaml").write_text(RECIPE.format(shards=chat_shards))
    return tmp_path / "talk.yaml"


def test_resumed_at_any_checkpoint_it_trains_the_same(talking: Path, tmp_path: Path) -> None:
    often = ["checkpoints.every=2 steps", "checkpoints.keep.last=99", "phases.1.length=2 epochs"]
    whole = tmp_path / "whole"
    train(load_recipe(str(talking), often), whole)
    expected, weights = losses_of(whole), dict(load_run(whole).decoder.named_parameters())
    names = sorted((folder.name for folder in (whole / "checkpoints").iterdir()), key=int)
    assert len(names) > 3
    for last in names[1:-1]:
        out = tmp_path / f"from-{last}"
        shutil.copytree(whole, out)
        for later in names[names.index(last) + 1 :]:
            shutil.rmtree(out / "checkpoints" / later)
        train(load_recipe(str(talking), often), out)
        assert losses_of(out) == expected
        again = load_run(out).decoder.named_parameters()
        assert all(torch.equal(weights[name], parameter) for name, parameter in again)


def test_a_row_costs_what_its_answers_cost(talking: Path, tmp_path: Path) -> None:
    one = ["phases.1.length=1 steps", "phases.1.batch.sequences=1"]
    train(load_recipe(str(talking), one), tmp_path / "run")
    before = load_recipe(str(talking), ["phases.0.length=2 steps"]).recipe
    reader = open_examples(before, ShardSet.open(before.shards.path))[1]
    batch = reader.read(0, 1)
    train(load_recipe(str(talking), [*one, "phases.1.length=1 steps"]), tmp_path / "run")
    first = next(r for r in metrics_of(tmp_path / "run") if r["phase"] == "talk")
    # The weights before the step, trained on text only.
    text = talking.read_text()
    head, tail = text.split("  - {name: talk")
    alone = talking.with_name("alone.yaml")
    alone.write_text(head + tail[tail.index("checkpoints:") :])
    train(load_recipe(str(alone)), tmp_path / "alone")
    decoder = load_run(tmp_path / "alone").decoder
    tokens = torch.from_numpy(batch.tokens)
    nats, count = 0.0, 0
    for document in range(int(batch.document_ids.max())):
        places = (batch.document_ids[0] == document).nonzero()[0]
        begin, end = int(places[0]), int(places[-1]) + 1
        own = tokens[:, begin:end]
        logits = decoder.logits(decoder(own[:, :-1]))[..., :300].double()
        losses = -logits.log_softmax(-1).gather(2, own[:, 1:, None])[0, :, 0]
        counts = torch.from_numpy(batch.label_mask[0, begin : end - 1])
        nats, count = nats + losses[counts].sum().item(), count + int(counts.sum())
    assert count == batch.label_mask.sum()
    assert first["train/loss"] == pytest.approx(nats / count, rel=1e-5)


def test_the_template_goes_with_the_model(
    talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from transformers import AutoTokenizer

    out = tmp_path / "run"
    train(
        load_recipe(
            str(talking), ["phases.1.length=20 epochs", "parametrization.learning_rate=3e-2"]
        ),
        out,
    )
    (tmp_path / "chat.jinja").unlink()
    feldspar.export(out, tmp_path / "exported")
    assert AutoTokenizer.from_pretrained(tmp_path / "exported").chat_template == CHATML
    shown = []
    for folder in (out, tmp_path / "exported"):
        monkeypatch.setattr("sys.stdin", io.StringIO("count 3\nmore\n"))
        assert run_with(["--quiet", "chat", str(folder), "--max-new-tokens", "20"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and shown[0].splitlines()[0].startswith("one")
    found = []
    for folder in (out, tmp_path / "exported"):
        words = ["evaluate", str(folder), "--messages", str(tmp_path / "talks.jsonl"), "--json"]
        assert run_with(["--quiet", *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["conversations"] == 12 and found[0]["nats_per_token"] < 1.5
    assert found[0]["nats_per_token"] == pytest.approx(found[1]["nats_per_token"], rel=1e-5)


def test_low_rank_updates_are_trained_on_messages(talking: Path, tmp_path: Path) -> None:
    lora = ["phases.1.lora={rank: 2, alpha: 4}", "phases.1.length=3 epochs"]
    train(load_recipe(str(talking), lora), tmp_path / "run")
    assert feldspar.open_model(tmp_path / "run").converse(max_new_tokens=3)
    assert metrics_of(tmp_path / "run")[-1]["phase"] == "talk"


def test_epochs_of_messages_are_planned(talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_loaded(load_recipe(str(talking)))
    record = planned.summary()["phases"][1]["messages"]
    assert record["tokens"] == 64 * (planned.timeline.phases[1].steps * 2 // 6)
    assert run_with(["plan", str(talking)]) == 0
    assert "phase talk: messages of " in capsys.readouterr().out
    (talking.parent / "talks.jsonl").unlink()
    with pytest.raises(UserError, match=r"phases.1.length: 6 epochs needs the number of messages"):
        plan_loaded(load_recipe(str(talking)))


def test_other_messages_and_templates_are_not_resumed(talking: Path, tmp_path: Path) -> None:
    short, long = ["phases.1.length=2 steps"], ["phases.1.length=4 steps"]
    train(load_recipe(str(talking), short), tmp_path / "run")
    template = talking.parent / "chat.jinja"
    template.write_text(CHATML.replace("|im_end|>'", "|im_end|> '"))
    with pytest.raises(UserError, match=r"phases.1.data: the examples are not those"):
        train(load_recipe(str(talking), long), tmp_path / "run")
    template.write_text(CHATML)
    moved = template.rename(template.with_name("moved.jinja"))
    train(load_recipe(str(talking), [*long, f"phases.1.data.template={moved}"]), tmp_path / "run")
    assert len(losses_of(tmp_path / "run")) == 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases.1.soft_prompt={length: 3}"], "phases.1.soft_prompt: it works with pairs only"),
        (["phases.1.documents=mask"], "phases.1.documents: it applies to shards only"),
        (["noise_scale={}"], "noise_scale: it cannot be measured on messages"),
        (["phases.1.context_length=10"], "tokens does not fit in 10"),
        (["phases.1.data.template=null"], "phases.1.data: the tokenizer has no chat template"),
        (["phases.1.data.path=nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["phases.1.data.date=yesterday"], "phases.1.data.date"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    talking: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    message: str,
) -> None:
    out = tmp_path / "run"
    assert run_with(["train", str(talking), "--out", str(out), *overrides]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in told and "Traceback" not in told
    assert not (out / "checkpoints").exists()


def test_an_open_base_is_tuned_by_its_own_template(tmp_path: Path) -> None:
    write_chat_model(tmp_path / "base")
    texts = {"train": {"prose": some_texts(1, 60)}, "validation": {"prose": some_texts(3, 10)}}
    documents = write_documents(tmp_path / "documents", texts)
    settings = ShardSettings(path=tmp_path / "shards")
    tokenizer = HuggingFaceTokenizer(path=str(tmp_path / "base"))
    build_shards(documents, tokenizer, settings, seed=0, workers=1)
    model = import_model(tmp_path / "base").settings
    text = RECIPE.format(shards=tmp_path / "shards").replace(", template: chat.jinja", "")
    own = f"model: {model.model_dump_json(exclude_none=True)}\n"
    own += f"start_from: {{type: huggingface, path: {tmp_path / 'base'}}}\n"
    (tmp_path / "talk.yaml").write_text(re.sub("model: .*\n", lambda found: own, text, count=1))
    write_talks(tmp_path / "talks.jsonl")
    train(load_recipe(str(tmp_path / "talk.yaml"), ["phases.1.length=4 steps"]), tmp_path / "run")
    opened = feldspar.open_model(tmp_path / "run")
    assert opened.tokenizer.chat_template == CHATML
    conversation = opened.converse(max_new_tokens=5)
    "".join(conversation.ask("count 1"))
    # The template writes no beginning of its own, so conversations have none, as in transformers.
    asked = conversation._encoder.encode(conversation.messages[:1], add_generation_prompt=True)
    assert opened.tokenizer.begin_of_sequence_id not in asked
    losses = losses_of(tmp_path / "run")
    assert losses[-1] < losses[2]
