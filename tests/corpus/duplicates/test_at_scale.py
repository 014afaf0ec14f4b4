"""The engine in real processes: killed in each stage, with many workers, in bounded memory."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet
from pyarrow.json import read_json as json_table

from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.parts import PART_BYTES
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.test_build import content

KILLED = """
import os, signal, sys
from pathlib import Path
from feldspar.core.progress import SilentListener, listening
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.stages import TITLES
from feldspar.recipe.sections.corpus import DeduplicateSettings

path, out, workers, moments, *stages = sys.argv[1:]
work = Path(out + ".incomplete-work")
settings = DeduplicateSettings(memory="64MB", cluster="representative")

class KillIn(SilentListener):
    def __init__(self, stage, when):
        self.stage, self.when = stage, when

    def start(self, title, total, unit):
        if title != TITLES[self.stage]:
            return super().start(title, total, unit)
        kill = lambda amount=0: os.kill(os.getpid(), signal.SIGKILL)
        return kill() if self.when == "begin" else kill

made = {}
for stage in stages:
    for when in moments.split(","):
        child = os.fork()  # of a process without threads, and imports nothing again
        if child == 0:
            with listening(KillIn(stage, when)):
                deduplicate_files([Path(path)], Path(out), settings, workers=int(workers))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9, (stage, when, status)
        assert not Path(out).exists()
        whole = work.glob("*/" + 6 * "[0-9]" + "/manifest.json")
        found = {each: each.stat().st_mtime_ns for each in whole}
        assert made.items() <= found.items(), "what was finished is not made again"
        made = found
print(*sorted({each.parts[-3] for each in made}))
"""
STAGES = ("read", "bands", "candidates", "order", "compare", "survivors", "write")

MEASURED = """
import sys
from pathlib import Path
from feldspar.corpus.files import deduplicate_files
from feldspar.recipe.sections.corpus import DeduplicateSettings

deduplicate_files([Path(sys.argv[1])], Path(sys.argv[2]), DeduplicateSettings(memory="64MB"))
# not getrusage, whose maximum outlives exec: it may be that of the process of the tests
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def corpus(path: Path, documents: int, length: int = 40) -> Path:
    """Texts of ``length`` words; every fifth is an earlier one with a word or two changed.

    Of every fifty, three are a chain: first and last are less alike than either with the second.
    """
    generator = random.Random(documents)
    words: list[str] = []
    with path.open("w") as file:
        for number in range(documents):
            if number % 50 in (1, 2):
                words[13 * (number % 50)] = "another"
            else:
                copied = number >= 5 and number % 5 == 0
                own = generator.randrange(number) if copied else number
                digits = random.Random(own).randbytes(3 * length).hex()
                words = [digits[start : start + 6] for start in range(0, len(digits), 6)]
                for _ in range(generator.randrange(3) if copied else 0):
                    words[generator.randrange(length)] = "another"
            record = {"source": "abc"[number % 3], "text": " ".join(words)}
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A corpus, and the output of a run in one process that nothing stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    path = corpus(folder / "in.jsonl", 4000)
    settings = DeduplicateSettings(memory="64MB", cluster="representative")
    deduplicate_files([path], folder / "out", settings)
    return path, content(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "moments", "stages"),
    [
        (1, "begin,first unit", STAGES),
        (2, "first unit", STAGES),
        (8, "first unit", ("read", "compare")),
    ],
)
def test_a_kill_in_any_stage_changes_nothing(
    workers: int,
    moments: str,
    stages: tuple[str, ...],
    unbroken: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    path, expected = unbroken
    settings = DeduplicateSettings(memory="64MB", cluster="representative")
    out, work = tmp_path / "broken", tmp_path / "broken.incomplete-work"
    command = [sys.executable, "-c", KILLED, str(path), str(out), str(workers), moments, *stages]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    made = sorted({*STAGES[: STAGES.index(stages[-1]) + 1]} - {"survivors"})
    assert result.stdout.split() == made
    damaged = next(work.glob("candidates/000000/pairs-*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    deduplicate_files([path], out, settings, workers=workers)
    assert content(out) == expected
    assert not work.exists()


@pytest.mark.slow
def test_same_bytes_for_any_workers_and_any_memory(tmp_path: Path) -> None:
    path = corpus(tmp_path / "in.jsonl", 14_000, 300)  # seven parts, five ranges of band keys
    assert path.stat().st_size > 7 * PART_BYTES
    contents = []
    for workers, memory in ((1, "2GB"), (1, "64MB"), (2, "64MB"), (7, "64MB")):
        out = tmp_path / f"{workers}-{memory}"
        settings = DeduplicateSettings(memory=memory)
        report = deduplicate_files([path], out, settings, workers=workers)
        contents.append(content(out))
    assert all(each == contents[0] for each in contents)
    assert report.dropped > 1000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_budget_of_memory_holds(tmp_path: Path, form: str) -> None:
    budget = 64_000_000
    peaks, sizes = [], []
    for documents in (200, 32_000):
        path = corpus(tmp_path / f"{documents}.jsonl", documents, 1200)
        if form == "parquet":  # in a single row group, which is not read at once
            table = json_table(str(path))
            path = path.with_suffix(".parquet")
            parquet.write_table(table, path, row_group_size=len(table))
        out = tmp_path / f"out-{documents}"
        command = [sys.executable, "-c", MEASURED, str(path), str(out)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout) * 1024)
        sizes.append(path.stat().st_size)
    if form == "jsonl":
        assert sizes[1] > 4 * budget
    # The small corpus loads all libraries and compiled functions, and holds next to no data.
    assert peaks[1] - peaks[0] < budget
