"""Run the faults: ``python -m tests.faults [--fast] [--only CLASS] [--json FILE]``.

Prints a table by class and each failure; exits with 1 when there is one.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

from tests.faults import damage, interruptions, malformed, refusals
from tests.faults.engine import Bench, Fault, Verdict, result_of, run, spread
from tests.faults.instants import at_event, count_into, send
from tests.faults.workspace import HALF, MAKERS, TASKS, small_disk, stage, write_texts

FAST_FAULTS = 3
"""Of each class in the fast part, from the first to the last."""
FAILURES = ("lost", "silent", "traceback", "unnamed", "hang")


def import_all(names: Iterable[str]) -> None:
    """Import what a command has imported, so that the next fork need not."""
    for name in names:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def make_bench(root: Path) -> Bench:
    """Make the undisturbed workspace; learn what each task gives in it, and in how many changes."""
    reference, work = root / "reference", root / "work"
    reference.mkdir()
    write_texts(reference)
    results, changes = {}, {}
    for name in (*MAKERS, *(name for name in TASKS if name not in MAKERS)):
        task = TASKS[name]
        stage(reference, work, task)
        ended = run(task.arguments, work, count_into(root / "changes"), root / "modules")
        if ended.code != 0:
            sys.exit(f"{name} fails when nothing is wrong:\n{ended.err}")
        changes[name] = (root / "changes").stat().st_size
        import_all((root / "modules").read_text().splitlines())
        results[name] = result_of(work, task, ended)
        for folder in task.makes:
            if name in MAKERS:
                shutil.copytree(work / folder, reference / folder, symlinks=True)
        if name == "train":
            stop = at_event(changes[name] // 3, send(signal.SIGTERM))
            stage(reference, work, task)
            assert run(task.arguments, work, stop).code == 128 + signal.SIGTERM
            shutil.copytree(work / "run", reference / HALF, symlinks=True)
    assert results["resume"] == results["train"], "a stop and a restart change nothing"
    return Bench(reference, work, results, changes)


def faults(bench: Bench, mounted: bool) -> Iterator[Fault]:
    """All faults, class by class."""
    reference, changes = bench.reference, bench.changes
    yield from interruptions.kills(changes)
    yield from damage.flips(reference)
    yield from damage.truncations(reference)
    yield from damage.deletions(reference)
    yield from refusals.permissions(reference)
    if not mounted:
        print("disk full: without a small disk, which this user may not mount")
    yield from refusals.disk_full(reference, changes, mounted)
    yield from interruptions.signals(changes)
    yield from refusals.links(reference)
    yield from malformed.inputs(reference)


def table(verdicts: list[Verdict]) -> str:
    """One line a class."""
    heads = ("class", "faults", *FAILURES)
    lines = [f"{heads[0]:<14}" + "".join(f"{head:>11}" for head in heads[1:])]
    kinds = list(dict.fromkeys(verdict.fault.kind for verdict in verdicts))
    for kind in [*kinds, None]:
        own = [v for v in verdicts if kind in (None, v.fault.kind)]
        counts = [len(own), *(sum(head in v.problems for v in own) for head in FAILURES)]
        lines.append(f"{kind or 'all':<14}" + "".join(f"{count:>11}" for count in counts))
    return "\n".join(lines)


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--fast", action="store_true", help="a part of each class")
    parser.add_argument("--only", help="one class, or words of a fault's name")
    parser.add_argument("--json", type=Path, help="write the verdicts into this file")
    options = parser.parse_args()
    began = time.monotonic()
    verdicts = []
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Not below a user's own temporary folder: another user must be able to walk there.
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    root.chmod(0o755)
    try:
        with small_disk(root) as mounted:
            os.environ["FELDSPAR_CACHE"] = str(root / "cache")
            bench = make_bench(root)
            chosen = list(faults(bench, mounted))
            if options.only:
                chosen = [f for f in chosen if options.only in f"{f.kind}: {f.name}"]
            if options.fast:
                chosen = fast_part(chosen)
            for fault in chosen:
                verdict = bench.try_out(fault)
                verdicts.append(verdict)
                for problem, seen in verdict.problems.items():
                    print(f"{problem}: {fault.kind}: {fault.name}\n{indented(seen)}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table(verdicts))
    print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        values = [
            {"kind": v.fault.kind, "name": v.fault.name, "code": v.code, "problems": v.problems}
            for v in verdicts
        ]
        options.json.write_text(json.dumps(values, indent=1) + "\n")
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def fast_part(chosen: list[Fault]) -> list[Fault]:
    """Return a few faults of each class."""
    classes: dict[str, list[Fault]] = {}
    for fault in chosen:
        classes.setdefault(fault.kind, []).append(fault)
    return [own[i] for own in classes.values() for i in spread(len(own), FAST_FAULTS)]


def indented(text: str) -> str:
    """The text's lines, each a little to the right."""
    return "    " + text.replace("\n", "\n    ")


if __name__ == "__main__":
    sys.exit(main())
