"""Compare what an old commit and this checkout do: plans, data, losses and exports.

python scripts/same_behaviour.py OLD_COMMIT

Both sides run the same commands with the same environment, on the same machine. The script prints a
line for each thing that was compared and exits with 1 if anything differs. Bits of losses differ
between processors, so they are compared here and never stored.

Documents are downloaded once, by either side. The whole comparison takes about half an hour.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEPS = 20
IMAGES = 1280
POLL_SECONDS = 0.2

BYTES = ("quickstart", "tokenizer.vocab_size=257", "shards.path=data/quickstart/bytes")
INFILLING_TOKENS = ("endoftext", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad")
INFILLING_BYTES = (
    "quickstart",
    "tokenizer.vocab_size=261",
    "tokenizer.special_tokens=" + json.dumps([f"<|{name}|>" for name in INFILLING_TOKENS]),
    "shards.path=data/quickstart/infilling-bytes",
)
DATA_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("corpus", "build", "quickstart"),
    ("tokens", "build", "quickstart"),
    ("tokens", "build", *BYTES),
    ("tokens", "build", *INFILLING_BYTES),
    ("corpus", "build", "supar/small"),
    ("tokens", "build", "supar/small"),
    ("corpus", "build", "bilingual/base"),
    ("tokens", "build", "bilingual/base"),
    ("corpus", "build", "bilingual/small"),
    ("tokens", "build", "bilingual/small"),
    ("corpus", "ontology", "hpo", "--out", "data/mediswift/hpo"),
    ("corpus", "build", "mediswift/small"),
    ("tokens", "build", "mediswift/small"),
    ("train", "bilingual/base", "--out", "runs/bilingual-base"),
)
"""Commands that make the data of the small recipes, each after those whose output it needs."""
TRAINED = (
    "quickstart",
    "alibi-interpolation/small",
    "btlm/small",
    "cerebras-gpt/small",
    "crystal/small",
    "gns/small",
    "mediswift/small",
    "slimpajama-dc/small",
    "spdf/small",
    "supar/small",
    "bilingual/base",
    "bilingual/small",
    "revbifpn/small",
)
EXPORTED = ("quickstart", "alibi-interpolation/small", "supar/small")
"""Recipes whose models export to a Llama class, to feldspar's own class, and with masks."""
WRITTEN_ANEW = {"manifest.json", "report.json"}
"""Files of data folders that hold times, versions or digests of other files."""


@dataclass(frozen=True)
class Side:
    """A source tree and the folder in which its commands run."""

    tree: Path
    work: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a feldspar command with one thread."""
        environment = os.environ | {
            "PYTHONPATH": str(self.tree / "src"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "feldspar", *arguments],
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run a feldspar command to its end and return what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"{self.tree}: feldspar {' '.join(arguments)}\n{output}")
        return output


def main() -> int:
    """Compare the two sides; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old_commit")
    parser.add_argument(
        "--only", choices=["plans", "data", "losses", "exports"], nargs="+", help="default: all"
    )
    arguments = parser.parse_args()
    chosen = arguments.only or ["plans", "data", "losses", "exports"]
    with tempfile.TemporaryDirectory(prefix="same-behaviour-") as name:
        folder = Path(name)
        old_tree = folder / "tree"
        git("worktree", "add", "--detach", str(old_tree), arguments.old_commit)
        try:
            sides = []
            for tree, label in ((old_tree, "old"), (ROOT, "new")):
                work = folder / label
                work.mkdir()
                sides.append(Side(tree, work))
            results = list(compare(sides[0], sides[1], chosen))
        finally:
            git("worktree", "remove", "--force", str(old_tree))
    different = [what for what, difference in results if difference]
    print(f"{len(results)} compared, {len(different)} different")
    return 1 if different else 0


def git(*arguments: str) -> None:
    """Run git in this repository."""
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True)


def compare(old: Side, new: Side, chosen: list[str]) -> Iterable[tuple[str, str]]:
    """Yield each thing that was compared, with the first difference or an empty text."""
    measures: list[tuple[str, Callable[[Side], Any]]] = []
    if "plans" in chosen:
        measures += [(f"plan {name}", plan_of(name)) for name in shipped_recipes()]
    if set(chosen) - {"plans"}:
        measures.append(("data", build_data))
    if "losses" in chosen:
        measures += [(f"losses {name}", first_losses(name)) for name in TRAINED]
    if "exports" in chosen:
        measures += [(f"export {name}", export_of(name)) for name in EXPORTED]
    for what, measure in measures:
        difference = first_difference(measure(old), measure(new))
        print(f"{what}: {difference or 'the same'}", flush=True)
        yield what, difference


def shipped_recipes() -> list[str]:
    """Return the names of all recipes of this checkout that can be planned."""
    folder = ROOT / "src" / "feldspar" / "recipes"
    paths = sorted(folder.rglob("*.yaml"))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    unplanned = ("data/", "revbifpn/")
    return [name for name in names if not name.startswith(unplanned) and "/method" not in name]


def plan_of(recipe: str) -> Callable[[Side], Any]:
    """Measure the plan of a recipe as plain values, paths relative to the side's folder."""

    def measure(side: Side) -> Any:
        return json.loads(side.run("plan", recipe, "--json").replace(f"{side.work}/", ""))

    return measure


def build_data(side: Side) -> dict[str, str]:
    """Build every corpus and all shards; return the digest of each file."""
    write_images(side.work / "data" / "fashion-mnist")
    for command in DATA_COMMANDS:
        side.run(*command)
    return digests(side.work / "data", "*")


def write_images(folder: Path) -> None:
    """Write random images in MNIST's format in place of Fashion-MNIST, which is no package."""
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        pixels = random.Random(split).randbytes(IMAGES * 28 * 28)
        labels = bytes(index % 10 for index in range(IMAGES))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 0x803, IMAGES, 28, 28) + pixels
        )
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, IMAGES) + labels
        )


def first_losses(recipe: str) -> Callable[[Side], Any]:
    """Measure the losses of a recipe's first steps; the run is killed after them."""

    def measure(side: Side) -> list[str]:
        out = side.work / "losses" / recipe
        process = side.start(*training(recipe), "--out", str(out))
        try:
            losses: list[str] = []
            while len(losses) < STEPS and process.poll() is None:
                time.sleep(POLL_SECONDS)
                losses = losses_of(out / "metrics.jsonl")
        finally:
            process.kill()
            output, _ = process.communicate()
        losses = losses_of(out / "metrics.jsonl")[:STEPS]
        if len(losses) < STEPS:
            raise SystemExit(f"{side.tree}: {recipe} ended after {len(losses)} steps\n{output}")
        shutil.rmtree(out)
        return losses

    return measure


def training(recipe: str) -> list[str]:
    """Return the command that trains a recipe, without its output folder."""
    if recipe.startswith("revbifpn"):
        return ["vision", "train", recipe, f"images.train_images={IMAGES}"]
    return ["train", recipe]


def losses_of(path: Path) -> list[str]:
    """Return the losses of all whole records, with every digit."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [float(record["train/loss"]).hex() for record in whole if "train/loss" in record]


def export_of(recipe: str) -> Callable[[Side], Any]:
    """Measure the files of a recipe's exported model after a short run."""

    def measure(side: Side) -> dict[str, str]:
        out, folder = side.work / "exports" / recipe, side.work / "exported" / recipe
        length = f"phases.0.length={STEPS} steps"
        side.run("train", recipe, length, "--out", str(out))
        side.run("export", str(out), "--out", str(folder))
        return digests(folder, "*.safetensors")

    return measure


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and path.name not in WRITTEN_ANEW
    }


def first_difference(old: Any, new: Any, place: str = "") -> str:
    """Name the first place in which two plain values differ; an empty text if there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                return f"{place}.{key} is only in the {'new' if key in new else 'old'} one"
            if difference := first_difference(old[key], new[key], f"{place}.{key}"):
                return difference
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            if difference := first_difference(left, right, f"{place}[{index}]"):
                return difference
        return ""
    return "" if old == new else f"{place or 'value'}: {old!r} before, {new!r} now"


if __name__ == "__main__":
    sys.exit(main())
