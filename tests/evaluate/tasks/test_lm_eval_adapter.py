"""lm-eval itself, offline: our adapter against brute force and against its `hf` model."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, processors

from feldspar.core.bundled_items import BUNDLED_FOLDER
from feldspar.core.errors import UserError
from feldspar.evaluate.exported import open_exported
from feldspar.evaluate.tasks.bundled_tasks import bundled_tasks
from feldspar.evaluate.tasks.lm_eval_adapter import lm_eval_model, run_lm_eval
from feldspar.evaluate.tasks.lm_eval_tasks import write_cloze_task
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.rounding import rounding, terms_of

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.evaluator import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

pytestmark = pytest.mark.slow

Make = Callable[..., TextModel]
DOCUMENTS = [
    "\n".join(f"{name} says number {n * n} of its own, naïve" for n in range(5))
    for name in ("the river", "a house", "stone", "old light", "new tree")
]
HF_SCRIPT = """
import json, sys
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
result = simple_evaluate(
    model="hf", model_args=f"pretrained={sys.argv[1]},dtype=float32", tasks=sys.argv[4:],
    task_manager=TaskManager(include_path=sys.argv[2:4], include_defaults=False),
    batch_size=3, device="cpu", bootstrap_iters=0, limit=6,
)
print("RESULT" + json.dumps([result["results"], result["samples"]], default=str))
"""
WITHOUT_NETWORK = """
import socket, sys

def refuse(*given, **named):
    print("network:", given, file=sys.stderr)
    sys.stderr.flush()
    import os
    os._exit(9)

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from feldspar.cli.main import run_with
sys.exit(run_with(["--quiet", "evaluate", sys.argv[1], "--tasks", "bundled", "--limit", "20",
                   "--json"]))
"""
NUMBER = r"-?\d+\.\d+(?:e[+-]?\d+)?"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf" / "datasets"))


def plain_log_likelihood(
    model: TextModel, context: str, continuation: str, begin: tuple[int, ...] = ()
) -> float:
    encoded = model.tokenizer.encode_documents([context, continuation])
    first, second = (part.tolist() for part in encoded)  # one token a byte: no merge across
    whole = [*begin, *first, *second][-(model.context_length + 1) :]
    hidden = model.decoder(torch.tensor([whole[:-1]]))
    log_probabilities = model.decoder.logits(hidden)[0].double().log_softmax(-1)
    wanted = torch.tensor(whole[1:])
    chosen = log_probabilities.gather(1, wanted[:, None])[:, 0]
    return float(chosen[-len(second) :].sum())


@torch.no_grad()
def test_the_harness_gets_brute_force_figures(make_model: Make, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    model = make_model(max_sequence_length=48)
    adapter = lm_eval_model(model)
    pairs = [("the river", " runs"), ("the river", " stands still"), ("x" * 60, "yz")]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    found = adapter.loglikelihood(requests)
    for (value, _), pair in zip(found, pairs, strict=True):
        assert value == pytest.approx(plain_log_likelihood(model, *pair), rel=1e-5)
    generation = Instance("generate_until", {}, ("the", {"until": ["e"], "max_gen_toks": 5}), 0)
    assert "e" not in adapter.generate_until([generation])[0]
    cloze, bits = write_cloze_task(tmp_path / "tasks", DOCUMENTS)
    figures = run_lm_eval(model, [cloze, bits], tmp_path / "tasks")
    figures = {result.task: result for result in figures}
    assert set(figures) == {cloze, bits} and 0 <= figures[cloze].metrics["acc"] <= 1
    assert figures[bits].metrics["bits_per_byte"] > 8  # random weights are worse than uniform
    with pytest.raises(UserError, match="no task 'held_out_clozee'") as refused:
        run_lm_eval(model, ["held_out_clozee"], tmp_path / "tasks")
    assert "held_out_cloze" in str(refused.value)


def begun(tokenizer: TextTokenizer) -> TextTokenizer:
    """The tokenizer with a token at the beginning of each text."""
    inner = Tokenizer.from_str(tokenizer.with_special_tokens(["<s>"]).to_json())
    special = [("<s>", inner.token_to_id("<s>"))]
    inner.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", special)
    return TextTokenizer(inner, tokenizer.end_of_document)


@torch.no_grad()
@pytest.mark.parametrize("begins", [False, True])
def test_equals_the_hf_model_on_the_exported_folder(
    make_model: Make, tmp_path: Path, begins: bool
) -> None:
    # One token a byte: passages, programs and documents are longer than the 160 positions.
    model = make_model(max_sequence_length=160, std=0.1, vocab_size=257 + begins)
    tokenizer, exported = tmp_path / "tokenizer", tmp_path / "model"
    tokenizer.mkdir()
    ours_begins = begun(model.tokenizer) if begins else model.tokenizer
    ours_begins.save(tokenizer)
    settings = model.decoder.settings
    weights = model.decoder.state_dict()
    export_model(weights, ModelDescription(settings), tokenizer, exported, architecture="gpt2")
    tasks = tmp_path / "tasks"
    names = [*write_cloze_task(tasks, DOCUMENTS), "bundled"]
    folders = [str(tasks), str(BUNDLED_FOLDER)]
    opened = open_exported(exported)
    ours = simple_evaluate(
        model=lm_eval_model(opened),
        tasks=names,
        task_manager=TaskManager(include_path=folders, include_defaults=False),
        bootstrap_iters=0,
        limit=6,
    )
    command = [sys.executable, "-c", HF_SCRIPT, str(exported), *folders, *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    theirs, their_samples = json.loads(result.stdout.split("RESULT")[1])
    assert set(ours["samples"]) == set(their_samples) == set(ours["results"])
    assert {task.name for task in bundled_tasks()} < set(their_samples)
    # A log-likelihood sums at most 160 terms, each a log-softmax of what the whole model adds up.
    terms = terms_of(opened.decoder, torch.zeros(160))
    for task, their_items in their_samples.items():
        for mine, other in zip(ours["samples"][task], their_items, strict=True):
            assert mine["doc_id"] == other["doc_id"]
            found, expected = (
                [float(number) for number in re.findall(NUMBER, str(each["filtered_resps"]))]
                for each in (mine, other)
            )
            assert len(found) == len(expected) > 0
            for value, wanted in zip(found, expected, strict=True):
                assert abs(value - wanted) <= rounding(terms, torch.float32, abs(wanted))
        for metric, value in theirs[task].items():
            if isinstance(value, float):
                assert ours["results"][task][metric] == pytest.approx(value, rel=1e-5), metric
    for item, sample in zip(
        [json.loads(line) for line in (tasks / f"{names[0]}.jsonl").read_text().splitlines()],
        their_samples[names[0]],
        strict=True,
    ):
        for choice, response in zip(item["choices"], sample["filtered_resps"], strict=True):
            expected = plain_log_likelihood(
                model, item["context"], f"\n{choice}", ours_begins.begin_ids
            )
            assert float(re.findall(NUMBER, str(response))[0]) == pytest.approx(expected, rel=1e-5)


def test_bundled_tasks_need_no_network(make_model: Make, tmp_path: Path) -> None:
    exported, tokenizer = tmp_path / "model", tmp_path / "tokenizer"
    tokenizer.mkdir()
    model = make_model(max_sequence_length=128)
    model.tokenizer.save(tokenizer)
    weights, described = model.decoder.state_dict(), ModelDescription(model.decoder.settings)
    export_model(weights, described, tokenizer, exported)
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(exported)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path / "no-home")},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout)  # nothing but the figures is on standard output
    assert set(found) == {task.name for task in bundled_tasks()}
    for task in bundled_tasks():
        assert found[task.name]["items"] == 20 and found[task.name]["chance"] == task.chance
        # 20 answers of a random model: beyond five standard errors is no chance
        spread = (task.chance * (1 - task.chance) / 20) ** 0.5
        assert abs(found[task.name]["acc"] - task.chance) < 5 * spread
    assert "it/s" not in result.stderr
