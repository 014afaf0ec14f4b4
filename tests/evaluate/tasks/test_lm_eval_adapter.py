"""lm-eval itself, offline: our adapter against brute force and against its `hf` model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, processors

from feldspar.core.errors import UserError
from feldspar.evaluate.exported import open_exported
from feldspar.evaluate.tasks.lm_eval_adapter import lm_eval_model, run_lm_eval
from feldspar.evaluate.tasks.lm_eval_tasks import write_cloze_task
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

lm_eval = pytest.importorskip("lm_eval")
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
    model="hf", model_args=f"pretrained={sys.argv[1]},dtype=float32", tasks=sys.argv[3:],
    task_manager=TaskManager(include_path=sys.argv[2], include_defaults=False),
    batch_size=3, device="cpu", bootstrap_iters=0,
)
responses = {
    task: [sample["filtered_resps"] for sample in sorted(samples, key=lambda s: s["doc_id"])]
    for task, samples in result["samples"].items()
}
print("RESULT" + json.dumps([result["results"], responses]))
"""


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
    assert set(figures) == {cloze, bits} and 0 <= figures[cloze]["acc"] <= 1
    assert figures[bits]["bits_per_byte"] > 8  # random weights are worse than uniform
    with pytest.raises(UserError, match="has no task 'held_out_clozee'"):
        run_lm_eval(model, ["held_out_clozee"], tmp_path / "tasks")


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
    model = make_model(max_sequence_length=64, std=0.1, vocab_size=257 + begins)
    tokenizer, exported = tmp_path / "tokenizer", tmp_path / "model"
    tokenizer.mkdir()
    ours_begins = begun(model.tokenizer) if begins else model.tokenizer
    ours_begins.save(tokenizer)
    settings = model.decoder.settings
    weights = model.decoder.state_dict()
    export_model(weights, ModelDescription(settings), tokenizer, exported, architecture="gpt2")
    tasks = tmp_path / "tasks"
    names = write_cloze_task(tasks, DOCUMENTS)
    ours = run_lm_eval(open_exported(exported), names, tasks)
    command = [sys.executable, "-c", HF_SCRIPT, str(exported), str(tasks), *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    theirs, responses = json.loads(result.stdout.split("RESULT")[1])
    for task in names:
        for metric, value in ours[task].items():
            if not metric.endswith("_stderr"):
                assert theirs[task][f"{metric},none"] == pytest.approx(value, rel=1e-5), metric
    items = [json.loads(line) for line in (tasks / f"{names[0]}.jsonl").read_text().splitlines()]
    for item, choices in zip(items, responses[names[0]], strict=True):
        for choice, (likelihood, _) in zip(item["choices"], choices, strict=True):
            expected = plain_log_likelihood(
                model, item["context"], f"\n{choice}", ours_begins.begin_ids
            )
            assert likelihood == pytest.approx(expected, rel=1e-5)
