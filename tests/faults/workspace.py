"""A tiny project on disk: texts, and everything that the commands make of them, made once.

Faults strike at a copy of it that lies at the same path, so that all results are comparable byte
by byte.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RECIPE = """\
schema_version: 1
name: tiny
seed: 3
corpus:
  path: documents
  sources:
    prose: {path: texts/prose.jsonl, reader: jsonl}
    notes: {path: texts/notes, reader: text}
  clean: {short: 20}
  split: {validation: 0.2, test: 0.1}
tokenizer: {type: train_bpe, vocab_size: 300}
shards: {path: shards}
model: {n_layers: 1, d_model: 16, n_heads: 2, d_ff: 24, vocab_size: 320, max_sequence_length: 32,
  positions: rotary, feed_forward: swiglu, norm: rms, bias: false}
parametrization: {type: mup, base_d_model: 8, base_d_ff: 12, learning_rate: 1e-2, init_std: 0.05}
schedule: {learning_rate: [{to: 1, over: 2 steps}, {to: 0.1, over: rest}]}
phases:
  - {name: short, length: 6 steps, context_length: 16, batch: {sequences: 4}, allow_repeat: true}
  - {name: long, length: 4 steps, batch: {sequences: 2}, allow_repeat: true,
     optimizer_state: keep}
checkpoints: {every: 3 steps}
evaluation: {every: 5 steps, validation_sequences: 2}
runtime: {trackers: [], threads: 1, device: cpu}
"""

VOLATILE_FILES = {"events.jsonl", ".lock"}
VOLATILE_KEYS = {"tokens_per_second", "model_flop_utilisation", "threads", "records"}
"""Of metrics.jsonl, which holds times, and of state.json, which holds the digest of the records."""

FREE_BYTES = 48 << 20
"""Size of the file system that the faults happen on, where one may be mounted."""


@dataclass(frozen=True)
class Task:
    """A command, the folders that it needs, and the folders that it makes."""

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    makes: tuple[str, ...] = ()

    @property
    def prints(self) -> bool:
        """If true, the result is what the command prints."""
        return not self.makes


BASE = ("texts", "recipe.yaml")
HALF = "half"
"""A run that was stopped half-way; it lies at ``run`` in the workspace."""
TASKS = {
    task.name: task
    for task in (
        Task(
            "build",
            ("corpus", "build", "recipe.yaml", "--workers", "1", "--engine", "serial"),
            BASE,
            ("documents",),
        ),
        Task(
            "encode",
            ("tokens", "build", "recipe.yaml", "--workers", "1"),
            (*BASE, "documents"),
            ("shards",),
        ),
        Task(
            "train",
            ("train", "recipe.yaml", "--out", "run"),
            (*BASE, "documents", "shards"),
            ("run",),
        ),
        Task(
            "resume",
            ("train", "recipe.yaml", "--out", "run"),
            (*BASE, "documents", "shards", HALF),
            ("run",),
        ),
        Task(
            "export",
            ("export", "run", "--out", "exported"),
            (*BASE, "documents", "shards", "run"),
            ("exported",),
        ),
        Task("import", ("import", "exported", "--out", "imported"), ("exported",), ("imported",)),
        Task(
            "release",
            ("release", "run", "--out", "release"),
            (*BASE, "documents", "shards", "run"),
            ("release",),
        ),
        Task("verify", ("release", "release", "--verify"), ("release",)),
        Task("show", ("tokens", "show", "shards", "--json"), (*BASE, "documents", "shards")),
        Task(
            "evaluate",
            ("evaluate", "run", "--json"),
            (*BASE, "documents", "shards", "run"),
        ),
        Task("report", ("report", "run"), (*BASE, "documents", "shards", "run")),
        Task("plan", ("plan", "recipe.yaml", "--json"), BASE),
    )
}
MAKERS = ("build", "encode", "train", "export", "import", "release")
"""The tasks that make the workspace, in this order."""


def write_texts(folder: Path) -> None:
    """Write the raw texts and the recipe: words drawn by hash, the same each time."""
    (folder / "texts" / "notes").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    lines = [json.dumps({"id": str(n), "text": _prose(n)}) for n in range(60)]
    (folder / "texts" / "prose.jsonl").write_text("\n".join(lines) + "\n")
    for number in range(12):
        (folder / "texts" / "notes" / f"{number}.txt").write_text(_prose(1000 + number))


def _prose(seed: int, words: int = 40) -> str:
    digests = (hashlib.sha256(f"{seed} {i}".encode()).hexdigest()[:5] for i in range(words))
    return " ".join(digests)


def stage(reference: Path, work: Path, task: Task) -> None:
    """Copy what a task needs from the reference into a new ``work``."""
    if work.is_symlink() or work.exists():
        _open_up(work)
        shutil.rmtree(work)
    work.mkdir()
    for name in task.needs:
        copy(reference / name, work / place_of(name))


def place_of(name: str) -> str:
    """Return where a file or folder of the reference lies in the workspace."""
    first, slash, rest = name.partition("/")
    return ("run" if first == HALF else first) + slash + rest


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def restore(reference: Path, work: Path, name: str) -> None:
    """Put one file or folder back as it was."""
    target = work / place_of(name)
    for parent in reversed(target.relative_to(work).parents):
        if (work / parent).is_dir():
            (work / parent).chmod(0o755)
    if target.is_dir() and not target.is_symlink():
        _open_up(target)
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy(reference / name, target)


def _open_up(folder: Path) -> None:
    for directory, names, _ in os.walk(folder):
        for name in names:
            if not (path := Path(directory) / name).is_symlink():
                path.chmod(0o755)


def snapshot(work: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the digest of each file below ``names``, without what differs from run to run."""
    found = {}
    for name in names:
        paths = sorted((work / name).rglob("*")) if (work / name).is_dir() else [work / name]
        for path in paths:
            within = path.relative_to(work).as_posix()
            if path.is_file() and path.name not in VOLATILE_FILES and not _of_times(within):
                data = path.read_bytes()
                if path.name in ("metrics.jsonl", "state.json"):
                    data = _without_times(data)
                found[within] = hashlib.sha256(data).hexdigest()
    return found


def _of_times(name: str) -> bool:
    """Tell whether a file is the manifest of a checkpoint, whose state holds digests of times."""
    return "/checkpoints/" in name and name.endswith("/manifest.json")


def _without_times(data: bytes) -> bytes:
    """Drop what differs from run to run from JSON lines, or from one JSON mapping."""
    try:
        lines = data.splitlines() if data.startswith(b'{"') else [data]
        records = [json.loads(line) for line in lines]
        kept = [{k: v for k, v in r.items() if k not in VOLATILE_KEYS} for r in records]
    except (ValueError, AttributeError):
        return data
    return json.dumps(kept).encode()


def files_of(reference: Path, folder: str) -> list[str]:
    """Return every file of a folder of the reference, by its path in the workspace."""
    return sorted(
        path.relative_to(reference).as_posix()
        for path in (reference / folder).rglob("*")
        if path.is_file() and path.name not in VOLATILE_FILES
    )


@contextmanager
def small_disk(root: Path) -> Iterator[bool]:
    """Mount a small file system at ``root`` where this process may; yields whether it did."""
    root.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={FREE_BYTES},mode=755", "faults", str(root)]
    mounted = shutil.which("mount") is not None and not subprocess.call(
        command, stderr=subprocess.DEVNULL
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.check_call(["umount", "--lazy", str(root)])
