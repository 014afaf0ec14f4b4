"""One code for all engines: the same bytes from this process, from a pool and from Ray."""

import builtins
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.cluster import OnSharedFolder, ray_executor
from feldspar.core.errors import RunError, SetupError, UserError
from feldspar.core.execution import Executor
from feldspar.corpus.engine import Engine, started
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.settings import DeduplicateSettings
from tests.corpus.conftest import prose
from tests.corpus.test_build import content

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
    with pytest.raises(UserError, match="unit 3") as caught:
        list(pool.map(fail_at_three, range(10)))
    assert type(caught.value) is UserError
    assert (caught.value.where, caught.value.allowed) == ("here", "others")


@needs_ray
@pytest.mark.slow
def test_ray_gives_a_lost_unit_to_another_worker(pool: Executor, tmp_path: Path) -> None:
    assert list(pool.map(die, [(tmp_path / "twice", 2)])) == [3]
    with pytest.raises(RunError, match="lost 4 times"):
        list(pool.map(die, [(tmp_path / "always", 99)]))


@needs_ray
@pytest.mark.slow
def test_a_task_that_no_machine_can_hold_is_refused(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="offers 900000"), ray_executor(2, 9 * 10**14, tmp_path):
        pass


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serial", "processes", "ray"])
def test_x(engine: Engine, cluster: None, jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("x.jsonl", [{"source": "s", "text": prose(i % 30)} for i in range(60)])
    settings = DeduplicateSettings(memory="64MB")
    deduplicate_files([path], tmp_path / "a", settings)
    deduplicate_files(
        [path], tmp_path / engine, settings, engine=engine, workers=1 if engine == "serial" else 2
    )
    assert content(tmp_path / engine) == content(tmp_path / "a")
