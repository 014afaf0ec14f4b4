"""Finding duplicates: speed, memory and accuracy of feldspar and of its peers on real corpora.

Every contender runs in a process of its own, from Parquet to components; contenders take turns, and
the medians over rounds count. Which pairs are duplicates is known from an exact join
(contenders/all_pairs.py). Peers that are not installed are left out, and said to be. Run:

    python benchmarks/deduplication.py            # the main part
    python benchmarks/deduplication.py --growth   # 1, 10 and 100 times the documents

text-dedup asks for older versions of what feldspar uses: give it an environment of its own, and
here the interpreter of that (--text-dedup-python).
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from contenders.all_pairs import Truth, accuracy, stored_truth
from contenders.banding_check import bands_and_filter
from contenders.corpora import corpus_file, passages, texts_of, write_documents
from feldspar.core.execution import available_cores
from feldspar.core.machine import processor

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MEMORY = "256MB"
GROWTH_MEMORY = "128MB"
NUMPY = {"NUMBA_DISABLE_JIT": "1"}
CONTENDERS: dict[str, tuple[str, dict[str, str]]] = {
    "feldspar": ("feldspar --workers 1", {}),
    "feldspar, 2 workers": ("feldspar --workers 2", {}),
    "feldspar, numpy": ("feldspar --workers 1", NUMPY),
    "feldspar, numpy, 2 workers": ("feldspar --workers 2", NUMPY),
    "rensa": ("rensa", {}),
    "rensa, pairs checked": ("rensa-checked", {}),
    "gaoya": ("gaoya", {}),
    "datasketch": ("datasketch", {}),
    "datatrove": ("datatrove", {}),
    "text-dedup": ("text-dedup", {}),
}
"""By name: the tool with its options, and the environment."""
GROWING = ("feldspar", "feldspar, 2 workers", "feldspar, numpy", "rensa", "gaoya")
SCALES = {"1x": 2_000, "10x": 20_000, "100x": 200_000}
PASSAGE_CHARACTERS = 400
KINDS = ("seconds", "cpu_seconds")
SLOW_SECONDS = 25.0
"""What needs more of the processor in the first round takes part in no other."""
SAMPLED_SECONDS = 0.02


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few documents, one round, no file")
    parser.add_argument("--growth", action="store_true", help="measure growth instead")
    parser.add_argument("--corpus", type=Path, help="Parquet (id: the row, source, text) instead")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="these contenders")
    parser.add_argument("--text-dedup-python", default=sys.executable, help="its interpreter")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    result: dict[str, Any] = {"machine": machine(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        measure = growth if options.growth else comparison
        result |= measure(options, Path(folder))
    result["load_after"] = os.getloadavg()
    if not options.quick:
        name = "deduplication_growth.json" if options.growth else "deduplication.json"
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What all figures depend on."""
    versions = {}
    for package in ("numpy", "numba", "pyarrow", "rensa", "gaoya", "datasketch", "datatrove"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "processor": processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
        "load_before": os.getloadavg(),
    }


def comparison(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders on the first corpus in rounds, then those that are quick on the second."""
    paths = (
        {"given": options.corpus}
        if options.corpus
        else {name: corpus_file(name) for name in ("tuning", "fresh")}
    )
    corpora: dict[str, Any] = {}
    names = options.only
    for corpus_name, original in paths.items():
        path = beginning(original, folder / f"{corpus_name}.parquet") if options.quick else original
        texts = texts_of(path)
        truth = stored_truth(path, texts)
        described = describe(texts, truth)
        print(f"{corpus_name}: {described}", flush=True)
        runs = take_turns(path, names, options, folder)
        size = described["bytes"] / 1e6
        rows = {name: row_of(runs[name], truth, len(texts), size) for name in names}
        described["contenders"] = rows
        described["ratios"] = ratios(rows)
        described["banding"] = bands_and_filter(texts, truth)
        print(table(described), described["banding"], sep="\n", flush=True)
        corpora[corpus_name] = described
        # the second corpus asks whether the figures hold elsewhere: slow tools need not answer
        names = [name for name in names if rows[name].get("rounds", 0) == options.rounds]
    return {"memory": MEMORY, "corpora": corpora}


def beginning(path: Path, target: Path) -> Path:
    """Every tenth document of a corpus."""
    texts = texts_of(path)
    write_documents(target, [("all", text) for text in texts[::10]])
    return target


def describe(texts: list[str], truth: Truth) -> dict[str, Any]:
    """The corpus in figures."""
    return {
        "documents": len(texts),
        "bytes": sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        "pairs": len(truth.pairs),
        "pairs_below_one": int((truth.intersections < truth.unions).sum()),
    }


def take_turns(
    path: Path, names: list[str], options: argparse.Namespace, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """The costs of each contender by round; another goes first in every round."""
    if "feldspar" in names:  # compiles its kernels where that was never done, and keeps them
        warm_up = beginning(path, folder / "warm-up.parquet")
        run("feldspar", warm_up, folder, GROWTH_MEMORY, sys.executable)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(options.rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            earlier = runs[name]
            if earlier and ("absent" in earlier[0] or earlier[0]["cpu_seconds"] > SLOW_SECONDS):
                continue
            memory = GROWTH_MEMORY if options.growth else MEMORY
            cost = run(name, path, folder, memory, options.text_dedup_python)
            earlier.append(cost)
            shown = {key: value for key, value in cost.items() if key != "found"}
            print(f"round {number}: {name}: {shown}", flush=True)
    return runs


def run(name: str, path: Path, folder: Path, memory: str, other_python: str) -> dict[str, Any]:
    """One contender once: its costs, and the file of what it found. Raises SystemExit."""
    tool, environment = CONTENDERS[name]
    python = other_python if tool == "text-dedup" else sys.executable
    found = folder / f"{name.replace(', ', '-')}.npz"
    script = HERE / "contenders" / "duplicates.py"
    command = [python, str(script), *tool.split(), str(path), str(found), "--memory", memory]
    variables = os.environ | {
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "PYTHONPATH": str(HERE.parent / "src"),
        **environment,
    }
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        peak = Peak(process.pid)
        output, _ = process.communicate()
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{name} failed: {errors.read()[-2000:]}")
    cost: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "absent" in cost:
        return cost
    cost["peak_bytes"] = max(cost["peak_bytes"], peak.stop())
    return cost | {"found": found}


class Peak:
    """The most that a process and its children held at once, looked at now and then."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self._bytes = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(SAMPLED_SECONDS):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self._bytes = max(self._bytes, sum(one.memory_info().rss for one in family))
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> int:
        """Bytes; pages that processes share count for each."""
        self._stopped.set()
        self._thread.join()
        return self._bytes


def row_of(
    costs: list[dict[str, Any]], truth: Truth, documents: int, megabytes: float
) -> dict[str, Any]:
    """Medians over rounds, and how right the pairs and components are."""
    if "absent" in costs[0]:
        return {"absent": costs[0]["absent"]}
    seconds = statistics.median(cost["seconds"] for cost in costs)
    found = np.load(costs[-1]["found"])
    right = accuracy(truth, found.get("pairs"), found["labels"])
    return {
        "rounds": len(costs),
        "seconds": seconds,
        "all_seconds": [cost["seconds"] for cost in costs],
        "cpu_seconds": statistics.median(cost["cpu_seconds"] for cost in costs),
        "documents_per_second": documents / seconds,
        "megabytes_per_second": megabytes / seconds,
        "peak_megabytes": max(cost["peak_bytes"] for cost in costs) / 1e6,
        "recall": dataclasses.asdict(right),
    }


def ratios(rows: dict[str, Any]) -> dict[str, Any]:
    """How many times the time of feldspar each took."""
    if "seconds" not in rows.get("feldspar", {}):
        return {}
    own = rows["feldspar"]
    return {
        name: {kind: row[kind] / own[kind] for kind in KINDS}
        for name, row in rows.items()
        if "seconds" in row
    }


def growth(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same contenders on 1, 10 and 100 times the documents, at one budget of memory."""
    sources = [corpus_file(name) for name in ("tuning", "fresh")]
    scales = dict(list(SCALES.items())[: 2 if options.quick else None])
    rows = passages(sources, max(scales.values()), PASSAGE_CHARACTERS)
    names = [name for name in GROWING if name in options.only]
    measured: dict[str, Any] = {name: {} for name in names}
    for scale, documents in scales.items():
        path = folder / f"{scale}.parquet"
        write_documents(path, rows[:documents])
        for name, costs in take_turns(path, names, options, folder).items():
            if "absent" in costs[0]:
                measured[name] = {"absent": costs[0]["absent"]}
                continue
            own = {
                kind: statistics.median(cost[kind] for cost in costs)
                for kind in (*KINDS, "peak_bytes")
            }
            measured[name][scale] = {
                **own,
                "cpu_microseconds_per_document": 1e6 * own["cpu_seconds"] / documents,
            }
    small, large = list(scales)[-2:]
    for own in measured.values():
        if large in own:
            more = own[large]["peak_bytes"] - own[small]["peak_bytes"]
            added = scales[large] - scales[small]
            own["megabytes_per_million_documents"] = more / added
    print(growth_table(measured, scales), flush=True)
    return {
        "memory": GROWTH_MEMORY,
        "passage_characters": PASSAGE_CHARACTERS,
        "documents": scales,
        "contenders": measured,
    }


def table(described: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows, over = described["contenders"], described["ratios"]
    head = ("seconds", "over ours", "CPU s", "over ours", "documents/s", "MB/s", "peak MB")
    head += ("pairs found", "of J < 1", "joined", "right")
    lines = ["| contender | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, row in rows.items():
        if "absent" in row:
            lines.append(f"| {name} | absent: {row['absent']} |")
            continue
        ratios_of = [f"{over[name][kind]:.1f}" if over else "" for kind in KINDS]
        cells = [
            f"{row['seconds']:.1f}",
            ratios_of[0],
            f"{row['cpu_seconds']:.1f}",
            ratios_of[1],
            f"{row['documents_per_second']:,.0f}",
            f"{row['megabytes_per_second']:.1f}",
            f"{row['peak_megabytes']:.0f}",
        ]
        shares = (row["recall"][kind] for kind in ("pairs", "below_one", "components", "precision"))
        cells += ["" if share is None else f"{share:.4f}" for share in shares]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def growth_table(measured: dict[str, Any], scales: dict[str, int]) -> str:
    """Microseconds of processor time a document and peak memory, by scale, as Markdown."""
    head = [f"us of CPU a document, {scale} | peak MB" for scale in scales]
    lines = ["| contender | " + " | ".join(head) + " | MB a million more |"]
    lines.append("|---" * (2 * len(scales) + 2) + "|")
    for name, own in measured.items():
        if "absent" in own:
            lines.append(f"| {name} | absent: {own['absent']} |")
            continue
        cells = [
            f"{own[scale]['cpu_microseconds_per_document']:.0f} | "
            f"{own[scale]['peak_bytes'] / 1e6:.0f}"
            for scale in scales
        ]
        more = own["megabytes_per_million_documents"]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {more:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
