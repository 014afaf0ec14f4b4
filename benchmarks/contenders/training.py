"""The processes that take turns at training the same shape: ours, a bare loop, HF's Trainer."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

BATCH_SEQUENCES, CONTEXT_LENGTH = 16, 256
LEARNING_RATE, BETAS, DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 0.1, 1.0
OPERATIONS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"),
    "attention": ("_scaled_dot_product",),
    "optimizer": ("_fused_adamw_", "linalg_vector_norm", "_foreach"),
    "loss and softmax": ("_softmax", "_log_softmax", "nll_loss", "amax", "gather", "scatter"),
    "activation": ("gelu", "silu", "tanh", "sigmoid"),
    "copies and fills": ("copy_", "cat", "fill_", "masked_fill_", "index_select", "embedding"),
}
"""Beginnings of operator names by what they serve; the rest is elementwise."""


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

    if contender != "feldspar":  # whose recipe says how many
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
    from importlib import import_module

    from feldspar.recipe.load import load_recipe
    from feldspar.runtime.signals import GracefulStop
    from feldspar.train.run import train

    class GatedStop(GracefulStop):
        def __enter__(self) -> "GatedStop":
            super().__enter__()
            gate.wait()
            return self

        def requested_anywhere(self) -> bool:
            asked = super().requested_anywhere()
            gate.tick()
            return asked

    # The name feldspar.train is a function's, so that the module is asked for by its whole name.
    import_module("feldspar.train.lifecycle").GracefulStop = GatedStop  # pyrefly: ignore
    train(load_recipe(str(recipe)), recipe.parent / "run")


def model_and_windows(recipe: Path) -> tuple[Any, Any, Any]:
    """Our decoder with its initial weights, its settings, and all windows of the run in memory."""
    import torch

    from feldspar.model.decoder import Decoder
    from feldspar.parametrization.application import apply
    from feldspar.plan.summary import plan_recipe
    from feldspar.recipe.load import load_recipe
    from feldspar.train.data import open_shards, open_training_data, source_tokens, with_vocabulary

    loaded = load_recipe(str(recipe))
    shards = open_shards(loaded.recipe)
    plan = plan_recipe(
        with_vocabulary(loaded, shards.vocab_size).recipe, source_tokens(shards, loaded.recipe)
    )
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

    from feldspar.huggingface.adapter import ModelDescription
    from feldspar.huggingface.gpt2 import Gpt2Adapter
    from feldspar.huggingface.llama import LlamaAdapter

    _, settings, windows = model_and_windows(recipe)
    adapter = LlamaAdapter() if settings.positions.type == "rotary" else Gpt2Adapter()
    values = adapter.to_configuration(ModelDescription(settings)) | {"use_cache": False}
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender")
    parser.add_argument("recipe", type=Path)
    arguments = parser.parse_args()
    work(arguments.contender, arguments.recipe)
