"""Training tokens a second against Hugging Face's Trainer and against a bare loop on our model.

Every contender trains the same shape on the same windows in a process of its own, one thread each.
The processes take turns of a few steps, so that all of them meet the same machine; the median turn
counts. The shards come from this Python's own library. Run:

    python benchmarks/training_throughput.py [--profile]

Contenders: ``feldspar`` is the run that ``feldspar train`` makes, metrics and all; ``bare`` a loop
written by hand on our model; ``trainer`` Hugging Face's Trainer as one runs it; ``trainer+pages``
the same with the C library told to keep freed pages, as ours does; ``trainer+tuned`` (GPT-2) also
with the activation in one operation, which the class does not do by itself.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "training_throughput.json"
BATCH_SEQUENCES, CONTEXT_LENGTH = 16, 256
LEARNING_RATE, BETAS, DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 0.1, 1.0
PAGES = "+pages"
OPERATIONS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"),
    "attention": ("_scaled_dot_product",),
    "optimizer": ("_fused_adamw_", "linalg_vector_norm", "_foreach"),
    "loss and softmax": ("_softmax", "_log_softmax", "nll_loss", "amax", "gather", "scatter"),
    "activation": ("gelu", "silu", "tanh", "sigmoid"),
    "copies and fills": ("copy_", "cat", "fill_", "masked_fill_", "index_select", "embedding"),
}
"""Beginnings of operator names by what they serve; the rest is elementwise."""

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "trainer": ["trainer", "trainer+pages", "trainer+tuned"],
        "vocab_size": 8192,
        "model": "{n_layers: 4, d_model: 256, n_heads: 4, d_ff: 1024, max_sequence_length: 256}",
    },
    "quickstart": {
        "trainer": ["trainer", "trainer+pages"],
        "vocab_size": 4096,
        "model": "{n_layers: 4, d_model: 160, n_heads: 5, d_ff: 432, max_sequence_length: 256, "
        "positions: rotary, feed_forward: swiglu, norm: {type: rms, epsilon: 1e-5}, bias: false}",
    },
    "btlm": {
        "trainer": [],
        "vocab_size": 4096,
        "model": "{n_layers: 4, d_model: 128, n_heads: 4, d_ff: 341, max_sequence_length: 256, "
        "positions: alibi, feed_forward: swiglu}",
    },
}
"""Shapes with the contenders that can express them; quickstart's is that of the recipe."""

RECIPE = """
schema_version: 1
name: throughput
shards: {{path: {shards}}}
model: {model}
parametrization: {{type: sp, learning_rate: 1.0e-3}}
optimizer: {{betas: [0.9, 0.95], weight_decay: 0.1, clip_norm: 1.0}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: 16}}, mixture: natural,
      allow_repeat: true}}
evaluation: {{every: {steps} steps}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: 1, device: cpu}}
"""


# What the parent does: shards, turns, table.


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--megabytes", type=float, default=6.0)
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "RECIPE"))
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    result: dict[str, Any] = {"machine": machine(), "shapes": {}}
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shapes:
            folder = Path(name) / shape
            recipe = write_recipe(folder, shape, options)
            measured = measure(recipe, SHAPES[shape]["trainer"], options)
            result["shapes"][shape] = measured
            print(table(shape, measured), flush=True)
            result["machine"]["load_after"] = os.getloadavg()
            # After each shape: the next one takes minutes, and may be interrupted.
            options.results.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=2) + "\n"
            options.results.write_text(text, encoding="utf-8")


def write_recipe(folder: Path, shape: str, options: argparse.Namespace) -> Path:
    """Shards of the standard library, and a recipe over them that lasts for all turns."""
    from feldspar.tokens import ShardSettings, TrainBpe, build_shards

    documents = write_documents(folder / "documents", options.megabytes)
    vocab_size = SHAPES[shape]["vocab_size"]
    build_shards(
        documents, TrainBpe(vocab_size=vocab_size), ShardSettings(path=folder / "shards"), seed=0
    )
    # One step more than asked for: the run's evaluation at its end is not to be measured.
    steps = options.steps * (options.turns + 2) + 1
    text = RECIPE.format(shards=folder / "shards", model=SHAPES[shape]["model"], steps=steps)
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_documents(folder: Path, megabytes: float) -> Path:
    """Documents of one source, in both splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feldspar.core.manifest import Manifest, records_of, write_manifest

    texts = list(library_texts(int(megabytes * 1e6)))
    for split, own in (("train", texts[8:]), ("validation", texts[:8])):
        target = folder / split / "library"
        target.mkdir(parents=True)
        names = [f"{split}-{n}" for n in range(len(own))]
        columns = {"id": names, "source": ["library"] * len(own), "text": own, "group": names}
        pq.write_table(pa.table(columns | {"origin": names}), target / "part-00000.parquet")
    counts = {"sources": {"library": {}}}
    manifest = Manifest("documents", "benchmark", "0", counts=counts, files=records_of(folder))
    write_manifest(folder, manifest)
    return folder


def library_texts(size: int) -> Iterator[str]:
    """Python files of the standard library, up to ``size`` bytes."""
    import sysconfig

    found = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py")):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield text
            found += len(text.encode())
        if found >= size:
            return


class Worker:
    """A contender's process, which trains only when it has a turn."""

    def __init__(self, contender: str, recipe: Path) -> None:
        command = [sys.executable, __file__, "--worker", contender, str(recipe)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, steps: int, profile: bool = False) -> dict[str, Any]:
        """Train some steps; what they took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"steps": steps, "profile": profile}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"a contender ended early: {self._process.args}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def measure(recipe: Path, trainers: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of alternating turns, and ratios of turns that followed each other."""
    names = ["feldspar", "bare", *trainers]
    workers = {name: Worker(name, recipe) for name in names}
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks = []
    try:
        for name in names:
            workers[name].turn(options.steps)  # warms up
        for number in range(options.turns):
            peaks.append(matmul_flops())
            for name in names if number % 2 == 0 else reversed(names):
                turns[name].append(workers[name].turn(options.steps))
        profiles = {
            name: workers[name].turn(options.steps, profile=True)["profile"]
            for name in (names if options.profile else ())
        }
    finally:
        for worker in workers.values():
            worker.close()
    return summary(recipe, turns, peaks, options.steps) | {"profile": profiles}


def summary(
    recipe: Path, turns: dict[str, list[dict[str, Any]]], peaks: list[float], steps: int
) -> dict[str, Any]:
    """Speeds by wall clock and by processor time, shares of the peak, and ratios."""
    tokens = steps * BATCH_SEQUENCES * CONTEXT_LENGTH
    flops = flops_per_token(recipe)
    peak = statistics.median(peaks)
    ours = turns["feldspar"]
    contenders = {}
    for name, own in turns.items():
        contenders[name] = {
            "tokens_per_second": tokens / median_of(own, "seconds"),
            "tokens_per_cpu_second": tokens / median_of(own, "cpu_seconds"),
            # Against the peak of the same turn: other work on the machine slows both.
            "share_of_peak": statistics.median(
                flops * tokens / turn["cpu_seconds"] / best
                for turn, best in zip(own, peaks, strict=True)
            ),
            "page_faults_per_step": median_of(own, "page_faults") / steps,
            "feldspar_is_faster_by": paired(own, ours, "seconds"),
            "feldspar_is_faster_by_cpu": paired(own, ours, "cpu_seconds"),
        }
    return {
        "batch": {"sequences": BATCH_SEQUENCES, "context_length": CONTEXT_LENGTH},
        "flops_per_token": flops,
        "peak_flops_per_second": peak,
        "contenders": contenders,
    }


def median_of(turns: list[dict[str, Any]], key: str) -> float:
    """The median of one figure."""
    return statistics.median(turn[key] for turn in turns)


def paired(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], key: str) -> float:
    """Median over rounds of their time divided by ours."""
    return statistics.median(a[key] / b[key] for a, b in zip(theirs, ours, strict=True))


def table(shape: str, measured: dict[str, Any]) -> str:
    """The figures as text."""
    peak = measured["peak_flops_per_second"] / 1e9
    heads = ("tokens/s", "per CPU s", "of peak", "faults/step", "ours is", "by CPU")
    rows = [
        f"{shape}: {BATCH_SEQUENCES} x {CONTEXT_LENGTH} tokens, 1 thread, peak {peak:.1f} GFLOP/s",
        " " * 16 + "".join(f"{head:>12}" for head in heads),
    ]
    for name, own in measured["contenders"].items():
        rows.append(
            f"{name:16}{own['tokens_per_second']:12,.0f}{own['tokens_per_cpu_second']:12,.0f}"
            f"{own['share_of_peak']:12.2f}{own['page_faults_per_step']:12,.0f}"
            f"{own['feldspar_is_faster_by']:11.2f}x{own['feldspar_is_faster_by_cpu']:11.2f}x"
        )
    profiles = measured["profile"]
    if profiles:
        rows += ["milliseconds of CPU a step:", " " * 20 + "".join(f"{n:>15}" for n in profiles)]
        for kind in next(iter(profiles.values())):
            cells = "".join(f"{profile[kind]:15.1f}" for profile in profiles.values())
            rows.append(f"  {kind:18}{cells}")
    return "\n".join(rows) + "\n"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch
    import transformers

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_before": os.getloadavg(),
    }


def matmul_flops(size: int = 1024, repeats: int = 8) -> float:
    """The best rate of a large product, by processor time."""
    import torch

    torch.set_num_threads(1)
    left = torch.ones(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        left @ left
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def flops_per_token(recipe: Path) -> float:
    """By the convention 6P+attention, the token table counted once, as the head."""
    from feldspar.plan.flops import flops_per_token as by_convention
    from feldspar.plan.summary import plan_recipe
    from feldspar.recipe.load import load_recipe
    from feldspar.train.data import open_shards, source_tokens
    from feldspar.train.run import with_vocabulary

    loaded = load_recipe(str(recipe))
    shards = open_shards(loaded.recipe)
    plan = plan_recipe(with_vocabulary(loaded, shards.vocab_size).recipe, source_tokens(shards))
    return by_convention(plan.recipe.model, plan.shapes, CONTEXT_LENGTH)["6P+attention"]


# What a contender's process does.


class Gate:
    """Called after each step; at the end of a turn it answers, and waits for the next turn."""

    def __init__(self) -> None:
        self._left = 0
        self._profiler: Any = nullcontext()

    def tick(self) -> None:
        """Count a step."""
        self._left -= 1
        if self._left == 0:
            self._answer()
            self.wait()

    def wait(self) -> None:
        """Wait for a turn."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        request = json.loads(line)
        self._steps = self._left = request["steps"]
        if request["profile"]:
            from torch.profiler import ProfilerActivity, profile

            self._profiler = profile(activities=[ProfilerActivity.CPU])
        self._profiler.__enter__()
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def _answer(self) -> None:
        answer: dict[str, Any] = {
            "seconds": time.perf_counter() - self._clock,
            "cpu_seconds": time.process_time() - self._cpu,
            "page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - self._faults,
        }
        self._profiler.__exit__(None, None, None)
        if not isinstance(self._profiler, nullcontext):
            answer["profile"] = grouped(self._profiler.key_averages(), self._steps)
        self._profiler = nullcontext()
        print("\n" + json.dumps(answer), flush=True)


def grouped(averages: Any, steps: int) -> dict[str, float]:
    """Milliseconds a step by what operators serve."""
    totals = dict.fromkeys([*OPERATIONS, "elementwise", "Python and autograd"], 0.0)
    for item in averages:
        name = item.key.removeprefix("aten::")
        kind = "Python and autograd"
        if item.key.startswith("aten::"):
            kind = "elementwise"
            for group, beginnings in OPERATIONS.items():
                if any(name == b or (len(b) > 6 and name.startswith(b)) for b in beginnings) or (
                    group == "activation" and name.startswith(beginnings)
                ):
                    kind = group
                    break
        totals[kind] += item.self_cpu_time_total / 1e3 / steps
    return totals | {"all": sum(totals.values())}


def work(contender: str, recipe: Path) -> None:
    """Train as ``contender`` whenever there is a turn."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if contender in ("bare", "trainer+pages", "trainer+tuned"):
        from feldspar.runtime.allocator import keep_freed_pages

        keep_freed_pages()
    gate = Gate()
    ways: dict[str, Callable[[], None]] = {
        "feldspar": lambda: with_feldspar(recipe, gate),
        "bare": lambda: with_bare_loop(recipe, gate),
    }
    ways.get(contender, lambda: with_trainer(recipe, gate, contender == "trainer+tuned"))()


def with_feldspar(recipe: Path, gate: Gate) -> None:
    """The run as ``feldspar train`` makes it; the gate sits where signals are asked for."""
    import feldspar.train.run as run
    from feldspar.recipe.load import load_recipe
    from feldspar.runtime.signals import GracefulStop

    class GatedStop(GracefulStop):
        def __enter__(self) -> "GatedStop":
            super().__enter__()
            gate.wait()
            return self

        def requested_anywhere(self) -> bool:
            asked = super().requested_anywhere()
            gate.tick()
            return asked

    run.GracefulStop = GatedStop  # pyrefly: ignore
    run.train(load_recipe(str(recipe)), recipe.parent / "run")


def model_and_windows(recipe: Path) -> tuple[Any, Any, Any]:
    """Our decoder with its initial weights, its settings, and all windows of the run in memory."""
    import torch

    from feldspar.model.decoder import Decoder
    from feldspar.parametrization.application import apply
    from feldspar.plan.summary import plan_recipe
    from feldspar.recipe.load import load_recipe
    from feldspar.train.data import open_shards, open_training_data, source_tokens
    from feldspar.train.run import with_vocabulary

    loaded = load_recipe(str(recipe))
    shards = open_shards(loaded.recipe)
    plan = plan_recipe(with_vocabulary(loaded, shards.vocab_size).recipe, source_tokens(shards))
    data = open_training_data(plan.recipe, plan.timeline, shards)
    decoder = Decoder(plan.recipe.model)
    apply(decoder, plan.table, plan.recipe.seed)
    sequences = data.reader.read(0, 0, plan.timeline.phases[0].sequences)
    return decoder, plan.recipe.model, torch.from_numpy(sequences.tokens)


def with_bare_loop(recipe: Path, gate: Gate) -> None:
    """What one writes by hand: forward, backward, clip, AdamW."""
    import torch

    decoder, _, windows = model_and_windows(recipe)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )
    gate.wait()
    for window in windows.split(BATCH_SEQUENCES):
        loss, count = decoder.loss(window[:, :-1].contiguous(), window[:, 1:].contiguous())
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        gate.tick()


def with_trainer(recipe: Path, gate: Gate, tuned: bool) -> None:
    """Hugging Face's Trainer: windows in memory, fused AdamW, nothing logged or saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback
    from transformers import TrainingArguments as Arguments

    from feldspar.huggingface.gpt2 import Gpt2Adapter
    from feldspar.huggingface.llama import LlamaAdapter

    _, settings, windows = model_and_windows(recipe)
    adapter = LlamaAdapter() if settings.positions.type == "rotary" else Gpt2Adapter()
    values = adapter.to_configuration(settings) | {"use_cache": False}
    if tuned:
        values["activation_function"] = "gelu_pytorch_tanh"
    values.pop("architectures")
    configuration = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(configuration, attn_implementation="sdpa")

    class Turns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            gate.wait()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            gate.tick()

    class Windows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(windows)

        def __getitems__(self, indices: list[int]) -> Any:
            return windows[indices, :-1]

        def __getitem__(self, index: int) -> Any:
            return windows[index, :-1]

    arguments = Arguments(
        output_dir=str(recipe.parent / "trainer"),
        per_device_train_batch_size=BATCH_SEQUENCES,
        max_steps=len(windows) // BATCH_SEQUENCES,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        weight_decay=DECAY,
        max_grad_norm=CLIP_NORM,
        optim="adamw_torch_fused",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=Windows(),
        data_collator=lambda ids: {"input_ids": ids, "labels": ids},  # pyrefly: ignore
        callbacks=[Turns()],
    ).train()


if __name__ == "__main__":
    main()
