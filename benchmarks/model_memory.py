"""Memory of a process while a model is imported, begun from, and resumed, on 1, 2 and 4 processes.

A random Llama is written, imported, and trained for one step, so that there is a checkpoint. Then
real processes (gloo, FSDP2) build the same model, from the imported folder and from the checkpoint,
up to its first step: a start holds weights (the optimizer comes after), a resumed run moments too.
Each process says its peak of resident memory above that of the libraries that it had loaded. Run:

    python benchmarks/model_memory.py --work /tmp/memory --results docs/results/model-memory.md
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import ARCHITECTURES
from feldspar.huggingface.tensor_rules import their_shapes
from feldspar.model.rows import model_shapes
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.runtime.tensor_file import TensorFileWriter, TensorHeader
from feldspar.tokens.shards.build_shards import build_shards

SIZES = {
    "200M": {"n_layers": 12, "d_model": 1024, "n_heads": 16, "d_ff": 2816, "vocab_size": 32000},
    "10M": {"n_layers": 6, "d_model": 256, "n_heads": 4, "d_ff": 768, "vocab_size": 8000},
}
PROCESSES = (1, 2, 4)
RECIPE = """
schema_version: 1
name: memory
shards: {{path: {shards}}}
start_from: {{type: huggingface, path: {imported}}}
model: {model}
parametrization: {{type: sp, learning_rate: 1e-4}}
schedule: {{learning_rate: [{{to: 1, over: rest}}]}}
phases: [{{name: only, length: 2 steps, context_length: 16, batch: {{sequences: 4}},
  mixture: {{words: 1}}, allow_repeat: true}}]
checkpoints: {{every: 1 steps}}
evaluation: {{every: 2 steps, validation_sequences: 4}}
runtime: {{trackers: [], threads: 1, micro_batch_sequences: 1}}
"""


@dataclass(frozen=True)
class Measured:
    """The largest peak of a group of processes, and what the processes must hold."""

    task: str
    processes: int
    peak_bytes: int
    held_bytes: int
    """Bytes of weights, and for a resumed run of moments, over all processes."""
    largest_bytes: int
    """Bytes of the largest tensor."""

    @property
    def bound_bytes(self) -> float:
        """The most that a process may need."""
        if self.task == "import":
            return 1.2 * self.held_bytes
        if self.processes == 1:
            return 1.2 * self.held_bytes
        return self.held_bytes / self.processes + self.largest_bytes


def main() -> None:
    """Measure, print a table, and write it where asked; fail where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("model-memory"))
    parser.add_argument("--size", choices=SIZES, default="200M")
    parser.add_argument("--results", type=Path, help="file for the table, beside the output")
    parser.add_argument("--child", help="a task to measure in this process")
    options = parser.parse_args()
    if options.child is not None:
        measure_here(options.child, options.work)
        return
    measured = measure(options.work.resolve(), options.size)
    text = table(measured, options.size)
    sys.stdout.write(text)
    if options.results is not None:
        write_atomically(options.results, text)
    if any(each.peak_bytes > each.bound_bytes for each in measured):
        sys.exit("a process needed more memory than its bound")


def measure(work: Path, size: str) -> list[Measured]:
    """Prepare the folders in ``work`` and return a measurement of each task."""
    settings = ModelSettings.model_validate(
        SIZES[size]
        | {"positions": "rotary", "feed_forward": "swiglu", "max_sequence_length": 64}
        | {"tied_embeddings": False}
    )
    weights, largest = write_llama(settings, work / "theirs")
    measured = [Measured("import", 1, run_child("import", work, 1), weights, largest)]
    write_recipe(settings, work)
    for processes in PROCESSES:
        peak = run_child("start", work, processes)
        measured.append(Measured("start_from", processes, peak, weights, largest))
    train_one_step(work)
    for processes in PROCESSES:
        peak = run_child("resume", work, processes)
        measured.append(Measured("resume", processes, peak, 3 * weights, largest))
    return measured


def write_llama(settings: ModelSettings, folder: Path) -> tuple[int, int]:
    """Write random float32 weights; return their bytes and those of the largest tensor."""
    adapter = ARCHITECTURES["llama"]
    folder.mkdir(parents=True)
    write_json(folder / "config.json", adapter.to_configuration(ModelDescription(settings)))
    shapes = {row.name: row.shape for row in model_shapes(settings).rows}
    headers = {
        name: TensorHeader(shape, torch.float32)
        for name, shape in their_shapes(adapter.tensor_rules(settings), shapes).items()
    }
    generator = torch.Generator().manual_seed(0)
    with TensorFileWriter(folder / "model.safetensors", headers) as writer:
        for name, header in headers.items():
            writer.write(name, 0.02 * torch.randn(header.shape, generator=generator))
    sizes = [TensorHeader(shape, torch.float32).n_bytes for shape in shapes.values()]
    return sum(sizes), max(sizes)


def write_recipe(settings: ModelSettings, work: Path) -> None:
    """Build shards of made words, and write the recipe that starts from the imported folder."""
    words = [f"word{index} " * 50 for index in range(200)]
    documents = work / "documents"
    for split in ("train", "validation"):
        write_documents(documents / split / "words", words)
    files = records_of(documents)
    counts = {"sources": {"words": {}}}
    write_manifest(documents, Manifest("documents", "memory", "0", counts=counts, files=files))
    shards = ShardSettings(path=work / "shards")
    build_shards(documents, TrainBpe(vocab_size=300), shards, seed=0, workers=1)
    text = RECIPE.format(
        shards=work / "shards",
        imported=work / "ours",
        model=json.dumps(settings.model_dump(mode="json", exclude_none=True)),
    )
    write_atomically(work / "recipe.yaml", text)


def write_documents(folder: Path, texts: list[str]) -> None:
    """Write documents as the corpus does."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    columns = {
        "id": [str(place) for place in range(len(texts))],
        "source": ["words"] * len(texts),
        "text": texts,
        "group": [str(place) for place in range(len(texts))],
        "origin": [str(place) for place in range(len(texts))],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "part-00000.parquet")


def train_one_step(work: Path) -> None:
    """Train for one step of two in a process, which leaves a checkpoint with moments."""
    command = [sys.executable, "-m", "feldspar", "train", str(work / "recipe.yaml")]
    command += ["--out", str(work / "run"), "phases.0.length=1 steps"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def run_child(task: str, work: Path, processes: int) -> int:
    """Run a task in processes of their own; return the largest of their peaks."""
    script = [str(Path(__file__).resolve()), "--work", str(work), "--child", task]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    peaks = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("PEAK ")]
    assert len(peaks) == processes, result.stdout
    return max(map(int, peaks))


def measure_here(task: str, work: Path) -> None:
    """Do a task and print the peak above the memory at its begin."""
    if task == "import":
        import feldspar
        import feldspar.huggingface.import_folder

        before = begin_peak()
        feldspar.import_model(work / "theirs", work / "ours")
        sys.stdout.write(f"PEAK {peak_bytes() - before}\n")
        return
    import torch._dynamo  # an optimizer imports it

    import feldspar.huggingface.import_folder
    from feldspar.runtime.distributed import Distribution, under_torchrun
    from feldspar.train.language_model import language_model
    from feldspar.train.lifecycle import open_run
    from feldspar.train.run import Inputs, begin_training

    kind = "fsdp" if under_torchrun() else "single"
    loaded = load_recipe(str(work / "recipe.yaml"), [f"runtime.distribution={kind}"])
    with Distribution.start(loaded.recipe.runtime) as distribution:
        torch.ones(8, 8) @ torch.ones(8, 8)
        before = begin_peak()
        inputs = Inputs.open(loaded)
        timeline = inputs.plan.timeline
        if task == "start":
            model = language_model(
                inputs.plan, inputs.data, distribution, timeline.phases[0], inputs.start
            )
        else:
            with open_run(inputs.loaded, timeline, work / "run", False) as run:
                model = begin_training(inputs, run, distribution)
        # One line, since the processes share a pipe.
        os.write(1, f"PEAK {peak_bytes() - before}\n".encode())
        distribution.barrier()
        del model


def begin_peak() -> int:
    """Forget the peak of this process so far; return its resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Return the peak of this process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say VmHWM")


def table(measured: list[Measured], size: str) -> str:
    """Return the table in Markdown."""
    held, largest = measured[0].held_bytes / 1e6, measured[0].largest_bytes / 1e6
    model = f"A Llama of {size} parameters, {held:,.0f} MB in float32"
    lines = [
        f"{model}; its largest tensor has {largest:,.0f} MB.",
        "",
        "| task | processes | peak of a process, MB | bound, MB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.task} | {each.processes} | {each.peak_bytes / 1e6:,.0f} "
        f"| {each.bound_bytes / 1e6:,.0f} |"
        for each in measured
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
