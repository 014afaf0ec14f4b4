"""One code for all engines: the same bytes from this process, from a pool and from Ray."""

import builtins
import fcntl
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from feldspar.core.cluster import OnSharedFolder, ray_executor
from feldspar.core.engines import started
from feldspar.core.errors import RunError, SetupError, UserError
from feldspar.core.execution import Executor
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.stages import Task, perform
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import prose
from tests.corpus.test_build import content
from tests.made_text import documents, edited

Jsonl = Callable[[str, list[dict[str, Any]]], Path]
MEMORY_BYTES = 64_000_000

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs feldspar[scale]"
)


def test_the_corpus_imports_no_engine() -> None:
    code = (
        "import sys, feldspar.corpus as c, feldspar.corpus.files, feldspar.corpus.build, "
        "feldspar.cli.corpus; [getattr(c, name) for name in dir(c)]; print(sorted(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(eval(result.stdout))
    assert not {"ray", "dask", "pyspark", "duckdb", "feldspar.core.cluster"} & loaded


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, jsonl: Jsonl, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without_ray(name: str, *rest: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    path = jsonl("x.jsonl", [{"source": "s", "text": prose(1)}])
    with pytest.raises(SetupError, match="ray is not installed") as caught:
        deduplicate_files([path], tmp_path / "out", DeduplicateSettings(), engine="ray")
    assert caught.value.exit_code == 3
    assert caught.value.do == "install it with: pip install 'feldspar[scale]'"


def test_the_serial_engine_has_one_worker(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="one unit at a time"),
        started("serial", 2, MEMORY_BYTES, tmp_path),
    ):
        pass


def test_a_machine_must_see_the_folder_and_have_the_same_version(tmp_path: Path) -> None:
    checked = OnSharedFolder(str, tmp_path)
    with pytest.raises(SetupError, match=r"machine .* of the cluster does not see") as caught:
        checked(1)
    assert "all machines mount under the same path" in str(caught.value)
    (tmp_path / "shared").write_text("0.0.1")
    with pytest.raises(SetupError, match=r"has feldspar .*, this one 0\.0\.1"):
        checked(1)


@needs_ray
def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(SetupError, match=f"no Ray cluster at {address}") as caught,
        started("ray", 2, MEMORY_BYTES, tmp_path),
    ):
        pass
    assert "RAY_ADDRESS" in str(caught.value.do)


def square(unit: int) -> int:
    return unit * unit


def fail_at_three(unit: int) -> int:
    if unit == 3:
        raise UserError("unit 3 is bad", where="here", allowed="others")
    return unit


def die(unit: tuple[Path, int]) -> int:
    """Kills its own process until that has happened ``times`` times."""
    trace, times = unit
    with trace.open("a") as file:
        file.write("x")
    if len(trace.read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(trace.read_text())


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests, as starting takes longer than working; they connect to what runs."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def pool(cluster: None, tmp_path: Path) -> Iterator[Executor]:
    with ray_executor(2, MEMORY_BYTES, tmp_path) as pool:
        yield pool


@needs_ray
@pytest.mark.slow
def test_ray_keeps_the_order_and_the_errors(pool: Executor) -> None:
    assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
    assert list(pool.map(square, [])) == []
    assert pool.elsewhere
    with pytest.raises(UserError, match="unit 3") as caught:
        list(pool.map(fail_at_three, range(10)))
    assert type(caught.value) is UserError
    assert (caught.value.where, caught.value.allowed) == ("here", "others")


@needs_ray
@pytest.mark.slow
def test_ray_gives_a_lost_unit_to_another_worker(pool: Executor, tmp_path: Path) -> None:
    assert list(pool.map(die, [(tmp_path / "twice", 2)])) == [3]
    with pytest.raises(RunError, match="lost a unit of work for good"):
        list(pool.map(die, [(tmp_path / "always", 99)]))


@needs_ray
@pytest.mark.slow
def test_a_task_that_no_machine_can_hold_is_refused(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="offers 900000"), ray_executor(2, 9 * 10**14, tmp_path):
        pass


@pytest.fixture(scope="module")
def large_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 long documents, 1,000 of them again with words replaced, 300 a third time."""
    texts = documents(2000, 1500, longest=12_000)
    generator = random.Random(0)
    copies = [edited(text, generator, 0.01) for text in texts[:1000] + texts[:300]]
    path = tmp_path_factory.mktemp("large") / "in.jsonl"
    with path.open("w") as file:
        for number, text in enumerate(texts + copies):
            file.write(json.dumps({"source": "abc"[number % 3], "text": text}) + "\n")
    return path


SETTINGS = DeduplicateSettings(memory="64MB", cluster="representative")


@pytest.fixture(scope="module")
def unbroken(large_corpus: Path) -> dict[str, bytes]:
    """The whole output of the serial engine."""
    out = large_corpus.with_name("serial")
    report = deduplicate_files([large_corpus], out, SETTINGS, engine="serial")
    assert report.dropped > 200
    assert report.edges > report.dropped
    return content(out)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 8])
def test_processes_give_the_bytes_of_one(
    workers: int, large_corpus: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    deduplicate_files([large_corpus], tmp_path / "out", SETTINGS, workers=workers)
    assert content(tmp_path / "out") == unbroken


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_bytes_of_one_process_although_a_worker_is_killed(
    cluster: None, large_corpus: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    with killing_busy_workers(2) as killed:
        deduplicate_files([large_corpus], tmp_path / "out", SETTINGS, engine="ray", workers=2)
    assert killed
    assert content(tmp_path / "out") == unbroken


@contextmanager
def killing_busy_workers(most: int) -> Generator[list[int]]:
    """Kills up to ``most`` of the cluster's workers, each while it is at a unit; their ids."""
    killed: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while len(killed) < most and not done.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::_applied"):
                        process.kill()
                        killed.append(process.pid)
                        break

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        done.set()
        watcher.join()


STARTED = """
import os, sys
from feldspar.core.execution import executor
from tests.made_text import documents, edited
from tests.corpus.test_engines import hold

lock, fifo = sys.argv[1:]
with executor(2) as pool:
    found = pool.map(hold, [(lock, fifo)])
    import threading
    threading.Thread(target=lambda: list(found), daemon=True).start()
    open(fifo).read(1)
    os.kill(os.getpid(), 9)
"""


def hold(unit: tuple[str, str]) -> None:
    """Holds the lock for as long as this process lives."""
    lock, fifo = unit
    with open(lock, "w") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(fifo).write_text("x")
        signal.pause()


def test_workers_do_not_outlive_the_command(tmp_path: Path) -> None:
    lock, fifo = tmp_path / "lock", tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", STARTED, str(lock), str(fifo)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    waiting = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX)"
    subprocess.run([sys.executable, "-c", waiting, str(lock)], check=True, timeout=60)


@pytest.mark.parametrize("flush", [False, True])
def test_files_are_on_disk_where_their_machine_may_stop(
    flush: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    perform(Task(write_first, None, tmp_path / "000000", "a", flush))
    assert {"value", "manifest.json"}.issubset(flushed) == flush


def in_between(unit: tuple[Path, str], folder: Path) -> dict[str, Any]:
    """Takes so long that another attempt at the same unit is done first."""
    (folder / "value").write_text("late")
    place, configuration = unit
    perform(Task(write_first, None, place, configuration))
    return {"value": "late"}


def write_first(unit: None, folder: Path) -> dict[str, Any]:
    (folder / "value").write_text("first")
    return {"value": "first"}


def test_a_late_attempt_does_not_replace_what_others_may_read(tmp_path: Path) -> None:
    place = tmp_path / "000000"
    assert perform(Task(in_between, (place, "a"), place, "a")) == {"value": "late"}
    assert (place / "value").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["000000"]
