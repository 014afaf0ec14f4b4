"""The doctor finds what is missing, and each finding ends with a command."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.runtime.doctor import (
    Finding,
    encoding_findings,
    examine_machine,
    gpu_findings,
    is_writable,
    memory_findings,
    package_findings,
    place_findings,
    python_findings,
    thread_findings,
)

LACKING = ["numpy>=999", 'absent>=2; extra == "data"', 'feldspar[data]; extra == "quickstart"']
OLD_OPTION = ['numpy>=999; extra == "web"', 'absent; extra == "web"']


@pytest.mark.parametrize(
    ("findings", "what", "do", "stops"),
    [
        (package_findings(None), "not installed", "pip install -e '.[quickstart]'", False),
        (package_findings(LACKING[1:]), "absent>=2", "pip install 'feldspar[quickstart]'", True),
        (package_findings(LACKING[:1]), "found", "pip install feldspar", True),
        (package_findings(OLD_OPTION), "web", "pip install 'feldspar[web]'", False),
        (gpu_findings(None, 0, True), "processors only", "pip install", False),
        (gpu_findings("12.8", 0, True), "sees no GPU", "nvidia-smi", False),
        (memory_findings(10**9), "1.0 GB", "free -h", True),
        (thread_findings(8, "1"), "idle", "unset OMP_NUM_THREADS", False),
        (thread_findings(2, "64"), "wait", "unset OMP_NUM_THREADS", False),
        (encoding_findings("iso8859-1", "utf-8"), "iso8859-1", "export LC_ALL=C.UTF-8", False),
    ],
)
def test_what_is_wrong_is_told_with_a_command(
    findings: list[Finding], what: str, do: str, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (finding,) = findings
    assert what in finding.what and finding.do.startswith(do)
    assert finding.stops_quickstart is stops


def test_nothing_is_told_of_what_is_right() -> None:
    assert [
        *package_findings(["numpy>=1", 'absent; extra == "web"']),
        *gpu_findings(None, 0, has_driver=False),
        *gpu_findings("12.8", 1, has_driver=True),
        *memory_findings(2 * 10**9),
        *memory_findings(None),
        *thread_findings(4, "4"),
        *thread_findings(4, None),
        *encoding_findings("UTF-8", "utf8"),
        *python_findings("3.11.0"),
    ] == []


def test_hidden_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = gpu_findings("12.8", 0, has_driver=True)
    assert finding.do == "unset CUDA_VISIBLE_DEVICES"


def test_a_place_that_cannot_be_written_stops_the_quickstart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_writable(tmp_path / "not" / "yet")
    assert not is_writable(tmp_path / "file")
    findings = list(place_findings(tmp_path, tmp_path / "file"))
    assert [f.do for f in findings if "cache" in f.what] == ["export FELDSPAR_CACHE=/tmp/feldspar"]
    assert findings[0].stops_quickstart


def test_the_command_for_people_and_for_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").touch()
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    examination = examine_machine(tmp_path)
    assert not examination.quickstart_runs
    assert all(finding.do for finding in examination.findings)
    assert run_with(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "do: export FELDSPAR_CACHE=" in shown and "cannot run here" in shown
    assert run_with(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["quickstart_runs"] is False and told["machine"]["torch"]
    assert any("cache" in finding["what"] for finding in told["findings"])
