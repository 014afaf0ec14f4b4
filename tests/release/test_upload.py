"""Upload to a hub on this machine, by the library itself; download again, load and continue."""

from collections.abc import Generator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from feldspar.cli.main import run_with
from feldspar.release.unpack import unpack_release
from feldspar.release.verify import verify_release
from feldspar.train.opened_model import open_model
from tests.release.fake_hub import TOKEN, FakeHub, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[FakeHub]:
    """A hub that the library takes for its own."""
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_a_release_is_uploaded_downloaded_and_continued(
    hub: FakeHub, open_release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["release", str(open_release), "--upload", "someone/tiny"]
    assert run_with(words) == 0
    assert f"{hub.address}/someone/tiny" in capsys.readouterr().out
    assert hub.private["someone/tiny"]
    branches = hub.branches["someone/tiny"]
    steps = ["step4-tokens512", "step8-tokens1024", "step12-tokens1536", "step14-tokens1792"]
    assert list(branches) == ["main", *steps]

    down = huggingface_hub.snapshot_download("someone/tiny", local_dir=tmp_path / "down")
    assert verify_release(Path(down)).problems == ()
    run = unpack_release(Path(down), tmp_path / "run", "1024")
    assert (run / "checkpoints" / "000000000001024" / "optimizer.safetensors").is_file()

    at = huggingface_hub.snapshot_download(
        "someone/tiny", revision=steps[0], local_dir=tmp_path / "at"
    )
    prompt = [[1, 2, 3]]
    found, expected = open_model(Path(at)).logits(prompt), open_model(run, "1024").logits(prompt)
    assert found.shape == expected.shape and not found.equal(expected)
    assert open_model(Path(down)).logits(prompt).equal(open_model(open_release).logits(prompt))

    sent = len(hub.uploaded)
    assert run_with(words) == 0
    assert len(hub.uploaded) == sent, "files were sent twice"


def test_a_refusal_and_a_hub_that_is_away_are_told(
    hub: FakeHub,
    open_release: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert run_with(["release", str(open_release), "--upload", "someone/tiny"]) == 3
    assert "hf auth login" in capsys.readouterr().err
    assert run_with(["release", str(open_release), "--upload", "a name/of no kind"]) == 2
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert run_with(["release", str(open_release), "--upload", "someone/tiny"]) == 3
    assert "cannot be reached" in capsys.readouterr().err
