"""Compare what an old commit and this checkout do: plans, data, losses and exports.

python scripts/same_behaviour.py OLD_COMMIT [--work FOLDER] [--only PART ...]

Both sides run the same commands with the same environment and one thread, on the same machine. The
script prints a line for each thing that was compared and exits with 1 if anything differs. Bits of
losses differ between processors, so they are compared here and never stored in the repository.

``--work FOLDER`` keeps the old side's data and measures in FOLDER, by commit. A second comparison
with the same commit then runs this checkout only. Many comparisons may use one folder at the same
time. Only one of them may measure the old side; a second one that needs it then is refused. To
measure a commit anew, delete its folder below FOLDER.

Unless the part ``data`` is compared too, the losses and exports of this checkout are measured with
the old side's data. This saves a minute, and a change of the data then does not change the losses.

Documents are downloaded once, into the user's cache, by either side.

On two quiet cores one side takes half a minute for plans, a minute for data, three minutes for
losses and one for exports. The printed seconds include waiting for other jobs of the machine.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "same-behaviour-"
PARTS = ("plans", "data", "losses", "exports")
STEPS = 20
IMAGES = 1280
POLL_SECONDS = 0.05
LIMIT_SECONDS = 900
"""Time after which a command is stopped and the comparison fails."""
PACKAGES = ("numpy", "pyarrow", "tokenizers", "torch", "transformers")
"""Packages on whose versions measures may depend."""

BYTES = ("quickstart", "tokenizer.vocab_size=257", "shards.path=data/quickstart/bytes")
DATA_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("corpus", "build", "quickstart"),
    ("tokens", "build", "quickstart"),
    ("tokens", "build", *BYTES),
    ("corpus", "build", "trunk"),
    ("tokens", "build", "trunk"),
    ("corpus", "build", "supar/small"),
    ("tokens", "build", "supar/small"),
    ("corpus", "build", "trunk"),
    ("tokens", "build", "trunk"),
    ("corpus", "build", "bilingual/small"),
    ("tokens", "build", "bilingual/small"),
    ("corpus", "ontology", "hpo", "--out", "data/mediswift/hpo"),
    ("corpus", "build", "mediswift/small"),
    ("tokens", "build", "mediswift/small"),
)
"""Commands that make the data of the small recipes, each after those whose output it needs."""
BASE_RUN = ("train", "trunk", "phases.0.length=25 steps", "evaluation.every=100% of run")
"""The run from which bilingual/small starts, made short."""
SMALL_RECIPES = (
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
    "trunk",
    "bilingual/small",
    "revbifpn/small",
)
HALF = "10 steps"
VALIDATED = (f"evaluation.every={HALF}", "evaluation.validation_sequences=4")
CONSTANT_RATE = "learning_rate=[{to: 1e-3, over: rest}]"
TRAINED: dict[str, tuple[str, ...]] = {name: (name,) for name in SMALL_RECIPES} | {
    "quickstart, recomputed": ("quickstart", "runtime.activation_memory=recompute", *VALIDATED),
    "gns/small, closed-loop": ("gns/small", "choose.batch=closed-loop", *VALIDATED),
    "alibi-interpolation/small, two phases": (
        "alibi-interpolation/small",
        "choose.training=fine-tuned",
        f"phases.0.length={HALF}",
    ),
    "btlm/small, two phases": ("btlm/small", f"phases.0.length={HALF}", *VALIDATED),
    "bilingual/small, two phases": ("bilingual/small", f"phases.0.length={HALF}", *VALIDATED),
    "crystal/small, two phases": (
        "crystal/small",
        "phases.0.length=7 steps",
        f"phases.0.{CONSTANT_RATE}",
        "phases.1.length=7 steps",
        f"phases.1.{CONSTANT_RATE}",
        *VALIDATED,
    ),
    "mediswift/small, two phases": (
        "mediswift/small",
        f"phases.0.length={HALF}",
        f"phases.0.{CONSTANT_RATE}",
        *VALIDATED,
    ),
    "spdf/small, two phases": (
        "spdf/small",
        f"phases.0.length={HALF}",
        f"phases.0.{CONSTANT_RATE}",
        *VALIDATED,
    ),
}
"""Runs whose first losses are measured: recipe and overrides."""
EXPORTED = ("quickstart", "cerebras-gpt/small", "alibi-interpolation/small", "supar/small")
"""Recipes whose models export to the classes of Llama, GPT-2 and feldspar, and with masks."""
UNPLANNED = re.compile("revbifpn/|.*/method$")
"""Recipes that the command plan does not take."""
WITHOUT_EVALUATION = ("evaluation.every=100% of run", "evaluation.validation_sequences=8")
WRITTEN_ANEW = {"manifest.json", "report.json"}
"""Files of data folders that hold times, versions or digests of other files."""


@dataclass(frozen=True)
class Side:
    """A source tree and the folder in which its commands run and find their data."""

    tree: Path
    work: Path

    def start(self, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start a feldspar command with one thread and without an accelerator."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("FELDSPAR_")
        }
        environment = inherited | {
            "PYTHONPATH": str(self.tree / "src"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "200",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "feldspar", *arguments],
            cwd=folder or self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, folder: Path | None = None) -> str:
        """Run a feldspar command to its end and return what it printed."""
        process = self.start(*arguments, folder=folder)
        try:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output = f"stopped after {LIMIT_SECONDS} seconds\n{process.communicate()[0]}"
        if process.returncode != 0:
            raise SystemExit(f"{self.tree}: feldspar {' '.join(arguments)}\n{output}")
        return output


Measure = Callable[[Side], Any]


def main() -> int:
    """Compare the two sides; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old_commit")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="default: all")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keep the old side's data and measures here, by commit; a second comparison with the "
        "same commit then runs this checkout only (default: a temporary folder)",
    )
    arguments = parser.parse_args()
    commit = git("rev-parse", "--verify", f"{arguments.old_commit}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = arguments.work.resolve() if arguments.work else Path(name)
        old = folder / commit
        old.mkdir(parents=True, exist_ok=True)
        expected = measures_of_commit(commit, old, arguments.only)
        with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as work:
            side = Side(ROOT, Path(work) if "data" in arguments.only else old)
            different = list(compare(expected, side, arguments.only))
    print(f"{len(different)} compared, {sum(different)} different")
    return int(any(different))


def git(*arguments: str) -> str:
    """Run git in this repository and return what it printed."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(expected: dict[str, Any], side: Side, parts: list[str]) -> Iterator[bool]:
    """Measure one side; print for each measure its first difference from the expected value."""
    for what, measure in measures(parts, expected["recipes"]):
        start = time.monotonic()
        difference = first_difference(expected[what], measure(side))
        seconds = time.monotonic() - start
        print(f"{what}: {difference or 'the same'} ({seconds:.0f} s)", flush=True)
        yield bool(difference)


def measures(parts: list[str], recipes: list[str]) -> list[tuple[str, Measure]]:
    """Return what to measure for some parts, by name and in order."""
    found: list[tuple[str, Measure]] = []
    if "plans" in parts:
        found += [(f"plan {name}", plan_of(name)) for name in recipes]
    if "data" in parts:
        found.append(("data", build_data))
    if "losses" in parts:
        found += [(f"losses {name}", first_losses(*run)) for name, run in TRAINED.items()]
    if "exports" in parts:
        found += [(f"export {name}", export_of(name)) for name in EXPORTED]
    return found


def measures_of_commit(commit: str, folder: Path, parts: list[str]) -> dict[str, Any]:
    """Return the measures of a commit: those that the folder keeps, and the missing ones taken.

    The commit's files are checked out below the folder while measures are taken. The folder then
    keeps the measures and the data.
    """
    path = folder / "measures.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    here = environment()
    if kept.setdefault("environment", here) != here:
        raise SystemExit(
            f"{folder}: the measures were taken with {kept['environment']}, and this is {here}; "
            "delete the folder or choose another one with --work"
        )
    needed = parts if set(parts) == {"plans"} else ["data", *parts]
    if "recipes" in kept and all(what in kept for what, _ in measures(needed, kept["recipes"])):
        return kept
    with locked(folder / "lock"), checked_out(commit, folder / "tree") as tree:
        side = Side(tree, folder)
        kept.setdefault("recipes", shipped_recipes(side))
        for what, measure in measures(needed, kept["recipes"]):
            if what not in kept:
                start = time.monotonic()
                kept[what] = measure(side)
                print(f"{commit[:7]}: {what} ({time.monotonic() - start:.0f} s)", flush=True)
                part = path.with_suffix(".part")
                part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                part.replace(path)
    return kept


def environment() -> dict[str, str]:
    """Return what measures depend on beside the source: processor and versions."""
    found = {"python": platform.python_version(), "processor": platform.processor()}
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        text = cpu.read_text(encoding="utf-8")
        found["processor"] = next(iter(re.findall(r"model name\s*: (.*)", text)), "")
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock; refuse where another process holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"{path.parent}: another process measures this commit; try again when it is done"
            ) from None
        yield


@contextmanager
def checked_out(commit: str, tree: Path) -> Iterator[Path]:
    """Check a commit out into a folder, which is removed at the end."""
    shutil.rmtree(tree, ignore_errors=True)
    git("worktree", "prune")
    git("worktree", "add", "--quiet", "--detach", str(tree), commit)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def shipped_recipes(side: Side) -> list[str]:
    """Return the names of all recipes that a side lists and can plan."""
    first_words = [line.split()[0] for line in side.run("recipe", "list").splitlines() if line]
    names = [name for name in first_words if re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?", name)]
    if "quickstart" not in names:
        raise SystemExit(f"{side.tree}: feldspar recipe list shows no quickstart")
    return [name for name in names if not UNPLANNED.match(name)]


def plan_of(recipe: str) -> Measure:
    """Measure the plan of a recipe as plain values, in an empty folder and relative to it."""

    def measure(side: Side) -> Any:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
            text = side.run("plan", recipe, "--json", folder=Path(folder))
        return json.loads(text.replace(f"{folder}/", ""))

    return measure


def build_data(side: Side) -> dict[str, str]:
    """Build every corpus and all shards; return the digest of each file."""
    shutil.rmtree(side.work / "data", ignore_errors=True)
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


def first_losses(recipe: str, *overrides: str) -> Measure:
    """Measure the losses of a run's first steps; the run is killed after them."""

    def measure(side: Side) -> list[str]:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
            out, base = Path(folder) / "run", Path(folder) / "base"
            command = [*training(recipe), *overrides]
            if recipe == "bilingual/small":
                side.run(*BASE_RUN, "--out", str(base))
                command.append(f"start_from.path={base}")
            process = side.start("--quiet", *command, "--out", str(out))
            latest = time.monotonic() + LIMIT_SECONDS
            losses: list[str] = []
            try:
                while len(losses) < STEPS and process.poll() is None and time.monotonic() < latest:
                    time.sleep(POLL_SECONDS)
                    losses = losses_of(out / "metrics.jsonl")
            finally:
                process.kill()
                output, _ = process.communicate()
            losses = losses_of(out / "metrics.jsonl")[:STEPS]
        if len(losses) < STEPS:
            raise SystemExit(f"{side.tree}: {recipe} ended after {len(losses)} steps\n{output}")
        return losses

    return measure


def training(recipe: str) -> list[str]:
    """Return the command that trains a recipe, without its output folder."""
    if recipe.startswith("revbifpn"):
        return ["vision", "train", recipe, f"images.train_images={IMAGES}"]
    return ["train", recipe]


def losses_of(path: Path) -> list[str]:
    """Return the losses of each whole record, with every digit: training, then validation."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [
        " ".join(float(value).hex() for key, value in sorted(record.items()) if is_loss(key))
        for record in whole
        if "train/loss" in record
    ]


def is_loss(key: str) -> bool:
    """Return True for the names of losses in a record."""
    return key in ("train/loss", "validation/loss")


def export_of(recipe: str) -> Measure:
    """Measure the files of a recipe's exported model after a short run."""

    def measure(side: Side) -> dict[str, str]:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
            run, exported = Path(folder) / "run", Path(folder) / "exported"
            length = f"phases.0.length={STEPS} steps"
            side.run("train", recipe, length, *WITHOUT_EVALUATION, "--out", str(run))
            side.run("export", str(run), "--out", str(exported))
            return digests(exported, "*.safetensors") | digests(exported, "*.json")

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
