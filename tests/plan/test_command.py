"""``feldspar plan``: one screen for people, JSON for machines, one line for bad input."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from tests.train.conftest import Command

Plan = Callable[..., dict[str, Any]]
MUP = ("cerebras-gpt/paper", "choose.parametrization=mup")


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Plan:
    """The JSON of a plan."""

    def run(*arguments: object) -> dict[str, Any]:
        assert run_with(["plan", *map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_the_keys_that_machines_rely_on(plan: Plan) -> None:
    values = plan("cerebras-gpt/paper")
    keys = {"parameters", "tokens", "steps", "warmup_steps", "flops", "phases", "warnings"}
    assert keys | {"memory", "time", "data", "sizing", "expected_loss"} <= set(values)
    assert values["parameters"] == {"total": 111_050_496, "non_embedding": 70_880_256}
    assert values["time"] is values["sizing"] is values["expected_loss"] is None
    assert values["memory"]["weights_bytes"] == 4 * 111_050_496
    assert values["data"]["sources"]["pile"]["epochs"] == pytest.approx(0.005986, abs=1e-6)


def test_the_class_that_the_model_is_exported_as(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    values = plan("btlm/small")["export"]
    assert values["class"] == "FeldsparForCausalLM" and values["own_code"]
    assert values["nearest"] == "GPT2LMHeadModel"
    assert "model.feed_forward: gelu" in values["needs"]
    assert run_with(["plan", "quickstart"]) == 0
    assert "exported as LlamaForCausalLM, which transformers loads" in capsys.readouterr().out


def test_the_page_leads_with_time_class_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["plan", "quickstart", "seed=3"]) == 0
    out, err = capsys.readouterr()
    name, time, exported, memory, *rest = out.splitlines()
    assert name == "quickstart" and time.startswith("  time        about ")
    assert "on this machine" in time and exported.startswith("  exported as ")
    assert memory.startswith("  memory ")
    begins = [line.split()[0] for line in rest if line.strip()]
    assert begins.index("parameters") < begins.index("data") < begins.index("FLOPs")
    assert err.startswith("next: feldspar train quickstart seed=3  # ")
    assert run_with(["--quiet", "plan", "quickstart", "--device", "A100"]) == 0
    out, err = capsys.readouterr()
    assert "this machine" not in out and out.splitlines()[1].startswith("  time ") and err == ""


def test_a_budget_sizes_the_recipe(plan: Plan) -> None:
    values = plan(*MUP, "--budget", "1e18", "--device", "A100", "--devices", 8)
    sizing = values["sizing"]
    assert f"{sizing['ideal']['parameters']:.4g}" == "9.129e+07"
    assert f"{sizing['ideal']['tokens']:.4g}" == "1.826e+09"
    assert values["parameters"]["total"] == sizing["parameters"]
    assert values["flops"]["6P"] == pytest.approx(1e18, rel=1e-3)
    assert values["memory"]["device"] == "A100" and values["memory"]["devices"] == 8
    hours = values["flops"]["6P+attention"] / (312e12 * 0.4 * 8) / 3600
    assert values["time"]["hours"] == pytest.approx(hours)
    again = shlex.split(sizing["command"])
    assert again[:2] == ["feldspar", "plan"] and again[3:] == sizing["overrides"]
    sized = plan(*again[2:])
    for key in ("parameters", "tokens", "steps", "warmup_steps", "flops", "phases", "data"):
        assert sized[key] == values[key]
    assert sized["sizing"] is None


def test_a_law_may_split_the_budget(plan: Plan) -> None:
    values = plan(*MUP, "--budget", "1e21", "--law", "chinchilla-refit")
    assert values["sizing"]["rule"] == "law chinchilla-refit"
    assert values["sizing"]["ideal"]["tokens"] * values["sizing"]["ideal"][
        "parameters"
    ] == pytest.approx(1e21 / 6)
    assert values["expected_loss"] is None
    assert any("unverified constants" in warning for warning in values["warnings"])


def test_the_loss_that_a_law_expects(plan: Plan) -> None:
    values = plan("cerebras-gpt/paper", "--law", "cerebras-gpt", "--law-flops", "2.6e18")
    expected = values["expected_loss"]
    assert expected["loss"] == pytest.approx(2.6030, abs=5e-5)
    assert expected["interval"][0] < 2.608 < expected["interval"][1]
    assert values["warnings"] == []


@pytest.mark.slow
def test_the_time_of_a_measured_run(recipe_file: Path, tmp_path: Path, feldspar: Command) -> None:
    run = tmp_path / "run"
    assert feldspar("train", recipe_file, "--out", run).returncode == 0
    result = feldspar("plan", recipe_file, "--measured", run, "--json")
    assert result.returncode == 0, result.stderr
    time = json.loads(result.stdout)["time"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [record["tokens_per_second"] for record in records]
    assert min(rates) <= time["tokens_per_second"] <= max(rates)
    assert time["source"] == "measured over 36 steps"


def test_the_records_of_a_run_folder(plan: Plan, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    recipe_file.rename(run / "recipe.yaml")
    records = [
        {
            "step": step,
            "tokens": 128 * step,
            "phase": "short",
            "train/loss": 5.0,
            "tokens_per_second": rate,
        }
        for step, rate in enumerate((7.0, 300.0, 300.0), start=1)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + "\ntorn{")
    values = plan(run, "--measured", run)
    assert values["time"]["source"] == "measured over 3 steps"
    short, long = (phase["tokens"] for phase in values["phases"])
    hours = [phase["hours"] for phase in values["time"]["phases"]]
    assert hours[0] == pytest.approx(short / 300 / 3600)
    assert hours[1] > long / 300 / 3600, "a longer context takes longer"


def test_shards_give_the_sizes_without_a_compiler(recipe_file: Path) -> None:
    script = (
        "import sys\n"
        "from feldspar.cli.main import run_with\n"
        "code = run_with(sys.argv[1:])\n"
        "assert not {'transformers', 'sympy', 'torch._dynamo'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", script, "plan", str(recipe_file), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)["data"]
    assert set(data["sources"]) == {"prose", "code"}
    assert all(source["epochs"] > 0 for source in data["sources"].values())
    short = data["phases"][0]["sources"]
    assert short["prose"]["probability"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "arguments",
    [
        ["btlm/paper", "--device", "H100", "--devices", "32"],
        [*MUP, "--budget", "1e21", "--tokens-per-parameter", "30", "--device", "h100"],
        ["cerebras-gpt/paper", "--law", "cerebras-gpt", "--law-flops", "2.6e18"],
        ["quickstart", "--tokens-per-second", "2e4"],
    ],
    ids=" ".join,
)
def test_one_screen_for_people(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["plan", *arguments]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24
    for line in ("parameters", "memory", "data", "time", "budget", "loss"):
        asked = {"time": "--devices" in arguments, "budget": "--budget" in arguments}
        if asked.get(line, line not in ("time", "loss")):
            assert f"  {line:11} " in shown
    assert ("nats per token" in shown) is ("--law" in arguments)


BAD = [
    (["--budget", "0"], "--budget: must be above 0"),
    (["--budget", "nan"], "--budget: must be above 0"),
    (["--budget", "1e12"], "--budget: 1e+12 FLOPs are too few for the smallest legal shape"),
    (
        ["--budget", "1e18", "--tokens-per-parameter", "-1"],
        "--tokens-per-parameter: must be above 0",
    ),
    (["--tokens-per-parameter", "20"], "--tokens-per-parameter needs --budget"),
    (["--law-flops", "1e18"], "--law-flops needs --law"),
    (["--utilisation", "0.4"], "--utilisation needs --device"),
    (["--device", "H10"], "--device: 'H10' is not a known accelerator; did you mean H100"),
    (["--device", "H100", "--utilisation", "40"], "--utilisation: must be a share of the peak"),
    (["--devices", "0"], "--devices: must be at least 1"),
    (["--devices", "7"], "phases.0.batch: 120 sequences do not divide among 7 processes"),
    (["--tokens-per-second", "0"], "--tokens-per-second: must be above 0"),
    (["--tokens-per-second", "1", "--measured", "x"], "--tokens-per-second and --measured both"),
    (["--measured", "no/such"], "no/such is not a run folder: it has no metrics.jsonl"),
    (["--law", "cerebras"], "there is no law 'cerebras'; did you mean 'cerebras-gpt'?"),
    (["--law", "cerebras-gpt"], "--law: cerebras-gpt uses its paper's own count of FLOPs"),
    (["--law", "cerebras-gpt", "--law-flops", "0"], "--law-flops: the FLOPs must be above 0"),
    (["--law", "chinchilla"], "--law: chinchilla splits a budget: give --budget"),
    (
        ["--law", "chinchilla", "--budget", "1e20", "--tokens-per-parameter", "20"],
        "--law: chinchilla splits the budget by itself",
    ),
    (
        ["schedule.learning_rate=[{to: 1, over: 9038 steps}, {to: 0, over: rest}]"],
        "schedule.learning_rate.0: the segment ends after",
    ),
    (["runtime.precision=float32", "--device", "A100"], "runtime.precision: float32, but the peak"),
    (["runtime.device=cpu", "--device", "A100"], "runtime.device: the recipe trains on a CPU"),
    (["phases.0.mixture={pyle: 1}"], "phases.0.mixture: unknown source 'pyle'; did you mean"),
    (["model.n_heads=7"], "model.n_heads: d_model 768 is not a multiple of 7 heads"),
    (["phases.0.sparsity={type: static, sparsity: 75}"], "phases.0.sparsity"),
    (["parametrization.init_std=.nan"], "override parametrization.init_std is not a finite number"),
    (
        ["choose.parametrization=mup", "parametrization.base_d_ff=null"],
        "parametrization.base_d_ff: mup needs base_d_model and base_d_ff",
    ),
]


@pytest.mark.parametrize(("arguments", "line"), BAD, ids=[" ".join(item) for item, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["plan", "cerebras-gpt/paper", *arguments]) == 2
    out, err = capsys.readouterr()
    first, *details = err.splitlines()
    assert first.startswith(f"error: {line}"), first
    assert out == "" and "Traceback" not in err
    labels = [detail.split(":")[0].strip() for detail in details]
    assert set(labels) <= {"where", "found", "allowed", "do"} and "where: default" not in err


def test_every_shipped_recipe_has_a_whole_plan() -> None:
    for name in ("btlm/small", "cerebras-gpt/small", "quickstart"):
        summary = plan_recipe(load_recipe(name).recipe).summary()
        assert summary["memory"]["total_bytes"] > 4 * 4 * summary["parameters"]["total"]


def test_a_dry_run_is_the_plan_that_training_would_take(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["train", str(recipe_file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "  data        " in shown and shown.endswith("dry run: nothing was trained\n")
    greedy = ["phases.0.allow_repeat=false", "phases.0.length=5000 steps"]
    assert run_with(["train", str(recipe_file), *greedy, "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: phases.0.mixture: source ")
    assert run_with(["plan", str(recipe_file), *greedy]) == 2
    assert capsys.readouterr().err == err


def test_a_source_that_may_not_be_read_again_is_refused_by_declared_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = ["slimpajama-dc/paper", "choose.mixture=dc-3"]
    once = ["phases.0.allow_repeat=false"]
    assert run_with(["plan", *recipe, *once]) == 2
    said = capsys.readouterr().err
    assert "source 'github' (32,604,000,000 tokens) would be read 2.45 times" in said
    assert "allow_repeat: [github]" in said
    unknown = [f"corpus.sources.{name}.tokens=null" for name in ("commoncrawl", "github")]
    assert run_with(["plan", *recipe, *once, *unknown]) == 0
    capsys.readouterr()


def test_values_far_from_what_models_are_trained_with_are_warned_of() -> None:
    overrides = ["parametrization.init_std=1e30", "parametrization.learning_rate=5"]
    told = plan_recipe(load_recipe("cerebras-gpt/small", overrides).recipe).warnings
    assert [line.split(":")[0] for line in told] == [
        "parametrization.init_std",
        "parametrization.learning_rate",
    ]
