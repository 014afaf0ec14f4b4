"""Measure behaviour that does not depend on the processor, through the command line.

Only commands and the files that they write are used, so that a change inside the package needs no
change here. Plans are read in an empty folder. Texts are made (``tests/made_text.py``).
"""

import hashlib
import io
import json
import random
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

from feldspar.cli.main import run_with
from tests.made_text import documents, edited
from tests.vision.pictures import some_pictures, write_split

HERE = Path(__file__).parent
PLAN_KEYS = ("parameters", "tokens", "images", "steps", "fewest_steps", "warmup_steps", "flops")
PHASE_KEYS = (
    "tokens",
    "images",
    "steps",
    "sequences",
    "batch_images",
    "context_length",
    "resolution",
    "learning_rate",
    "weight_decay",
    "active_parameters",
    "trainable_parameters",
    "macs",
    "memory_bytes",
)
DIGITS = 12
"""Significant digits of recorded numbers: mathematical libraries differ in the last one or two."""

RUN = {
    "schema_version": 1,
    "name": "tiny",
    "corpus": {
        "path": "documents",
        "sources": {
            "first": {"licence": "CC0-1.0", "reader": "jsonl", "path": "first.jsonl"},
            "second": {"licence": "CC0-1.0", "reader": "jsonl", "path": "second.jsonl"},
        },
        "split": {"validation": 0.1, "test": 0.1},
    },
    "tokenizer": {"type": "train_bpe", "vocab_size": 320},
    "shards": {"path": "shards", "shard_tokens": 20000},
    "model": {
        "n_layers": 2,
        "d_model": 16,
        "n_heads": 2,
        "d_ff": 24,
        "vocab_size": 320,
        "max_sequence_length": 16,
    },
    "parametrization": {"type": "sp", "init_std": 0.02, "learning_rate": 1e-3},
    "phases": [
        {
            "name": "all",
            "length": "1 steps",
            "batch": {"sequences": 2},
            "mixture": {"first": 0.5, "second": 0.5},
        }
    ],
    "checkpoints": {"every": "100% of run"},
    "evaluation": {"every": "100% of run", "validation_sequences": 2},
    "runtime": {"trackers": [], "threads": 1},
}
SHAPES: dict[str, tuple[str, ...]] = {
    "GPT-2": (),
    "Llama": (
        "model.positions=rotary",
        "model.feed_forward=swiglu",
        "model.norm=rms",
        "model.bias=false",
        "model.n_kv_heads=1",
        "model.tied_embeddings=false",
    ),
    "feldspar's own": ("model.positions=alibi", "model.feed_forward=swiglu"),
    "sparse": ("phases.0.sparsity={type: static, sparsity: 0.5}",),
}
"""Overrides that give each class of exported model, and one with masks."""
PICTURES = {
    "schema_version": 1,
    "name": "stripes",
    "images": {"format": "idx", "train": "train", "validation": "held-out"},
    "model": {
        "channels": [16, 24],
        "neck_channels": [16, 24],
        "head_width": 32,
        "classes": 3,
        "image_channels": 1,
        "residual_layers": 1,
        "extra_silos": 1,
    },
    "parametrization": {"learning_rate": 0.1},
    "optimizer": {"type": "sgd"},
    "schedule": {"learning_rate": [{"to": 0, "over": "rest"}]},
    "phases": [{"name": "all", "length": "1 steps", "resolution": 16, "batch": {"images": 8}}],
    "average_weights": {"decay": 0.8},
    "checkpoints": {"every": "100% of run"},
    "evaluation": {"every": "100% of run", "crop": 1.0},
    "runtime": {"trackers": [], "threads": 1},
}


def run(*arguments: str) -> str:
    """Run a feldspar command in this process and return what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run_with(["--quiet", *arguments])
    assert code == 0, f"feldspar {' '.join(arguments)} ended with {code}"
    return printed.getvalue()


def rounded(value: Any) -> Any:
    """Return plain values with ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes that can be planned."""
    return [line.split()[0] for line in run("recipe", "list").splitlines()]


def plan(recipe: str, folder: Path) -> dict[str, Any]:
    """Return the numbers of a shipped recipe's plan; ``folder`` is an empty one."""
    group = ["vision"] if recipe.startswith("revbifpn/") else []
    with chdir(folder):
        whole = json.loads(run(*group, "plan", recipe, "--json"))
    found = {key: whole[key] for key in PLAN_KEYS if key in whole}
    found["phases"] = {
        phase["name"]: {key: phase[key] for key in PHASE_KEYS if key in phase}
        for phase in whole["phases"]
    }
    memory = whole.get("memory", {})
    found["memory"] = {key: memory[key] for key in sorted(memory) if key.endswith("_bytes")}
    return rounded(found)


def plans(folder: Path) -> dict[str, Any]:
    """Return the numbers of every shipped recipe's plan."""
    return {name: plan(name, folder) for name in recipe_names()}


def write_recipe(path: Path, recipe: dict[str, Any]) -> None:
    """Write a recipe as YAML."""
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def write_texts(folder: Path) -> None:
    """Write two sources of made texts, with copies of all kinds in both and between them."""
    texts, draw = documents(90, 300, longest=3000), random.Random(0)
    copies = [texts[3].upper(), f"  {texts[4]}\n\n", edited(texts[5], draw, 0.01), texts[6][:-40]]
    odd = ["short", "", "caf\u0065\u0301 \ufb01n " * 40, "one\r\ntwo\x00three " * 30]
    for name, chosen in (("first", texts[:60] + odd), ("second", texts[60:] + copies)):
        records = ({"id": f"{name}-{n}", "text": text} for n, text in enumerate(chosen))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def build_data(folder: Path) -> None:
    """Build the documents and shards of the made texts in a folder, with ``tiny.yaml`` beside."""
    write_texts(folder)
    write_recipe(folder / "tiny.yaml", RUN)
    with chdir(folder):
        run("corpus", "build", "tiny.yaml", "--workers", "1")
        run("tokens", "build", "tiny.yaml", "--workers", "1")


def data(folder: Path) -> dict[str, str]:
    """Return digests of rows of documents, of the vocabulary and of shards.

    Rows are read because the bytes of Parquet files depend on the version of their writer.
    """
    found: dict[str, Callable[[Path], bytes]] = {".parquet": rows, ".tokens": Path.read_bytes}
    found |= {".npy": Path.read_bytes, "tokenizer.json": vocabulary}
    return {
        path.relative_to(folder).as_posix(): digest(read(path))
        for path in sorted(folder.rglob("*"))
        for ending, read in found.items()
        if path.name.endswith(ending)
    }


def digest(content: bytes) -> str:
    """Return 16 digits of the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def rows(path: Path) -> bytes:
    """Return the rows of a Parquet file as JSON."""
    return json.dumps(pq.read_table(path).to_pylist(), sort_keys=True).encode()


def vocabulary(path: Path) -> bytes:
    """Return vocabulary and merges of a tokenizer as JSON."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    return json.dumps([model["vocab"], model["merges"]], sort_keys=True).encode()


def tensors(folder: Path) -> dict[str, Any]:
    """Return names, types and shapes of all tensors of checkpoints and exported models.

    ``folder`` holds what ``build_data`` built. RevBiFPN has hundreds of tensors: their number and a
    digest stand for them.
    """
    found: dict[str, Any] = {}
    with chdir(folder):
        for number, (shape, overrides) in enumerate(SHAPES.items()):
            out, exported = f"run-{number}", f"exported-{number}"
            run("train", "tiny.yaml", *overrides, "--out", out)
            run("export", out, "--out", exported)
            (checkpoint,) = (folder / out / "checkpoints").iterdir()
            found[f"{shape}, checkpoint"] = tensors_of(checkpoint)
            found[f"{shape}, exported"] = tensors_of(folder / exported)
        write_split(folder / "train", *some_pictures(1, 16))
        write_split(folder / "held-out", *some_pictures(2, 8))
        write_recipe(folder / "stripes.yaml", PICTURES)
        run("vision", "train", "stripes.yaml", "--out", "pictures")
        (checkpoint,) = (folder / "pictures" / "checkpoints").iterdir()
        found["RevBiFPN, checkpoint"] = {
            name: [len(inner), digest(json.dumps(inner, sort_keys=True).encode())]
            for name, inner in tensors_of(checkpoint).items()
        }
    return found


def tensors_of(folder: Path) -> dict[str, dict[str, str]]:
    """Return the tensors of each file of tensors in a folder, each as its type and shape."""
    return {path.name: header(path) for path in sorted(folder.glob("*.safetensors"))}


def header(path: Path) -> dict[str, str]:
    """Return type and shape of each tensor of a file by its name."""
    with safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {
            name: f"{each.get_dtype()} {each.get_shape()}".lower() for name, each in slices.items()
        }


def recorded(name: str) -> dict[str, Any]:
    """Return recorded values; ``name`` is plans, data or tensors."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
