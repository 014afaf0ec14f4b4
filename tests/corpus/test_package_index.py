"""Archives come from pip's index, checked before anything of them is used; nothing is built."""

import hashlib
import io
import json
import os
import tarfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from feldspar.core.errors import SetupError, UserError
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.corpus.readers.package_index import JSON_TYPE
from feldspar.corpus.readers.pip_settings import pip_settings
from feldspar.recipe.sections.readers import Archive

NAME = "thing_of.ours"
REQUIREMENT = f"{NAME}==1.0"
FILE = "thing_of_ours-1.0.tar.gz"


@dataclass
class Index:
    """A package index on this machine: the answer of each path, and what was asked for."""

    address: str
    answers: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def page(self, *links: str) -> None:
        """Answer for the project with a page of links."""
        html = "".join(f"<a href='{link}'>a file</a>" for link in links)
        self.answers["/simple/thing-of-ours/"] = ("text/html", html.encode())


@pytest.fixture
def servers() -> Iterator[list[ThreadingHTTPServer]]:
    """Servers that are stopped at the end."""
    started: list[ThreadingHTTPServer] = []
    yield started
    for server in started:
        server.shutdown()
        server.server_close()


def serve(servers: list[ThreadingHTTPServer]) -> Index:
    """Start an index that answers as it is told."""
    index = Index("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            index.asked.append((self.path, given))
            if index.user and given != "Basic " + b64encode(index.user.encode()).decode():
                self.send_error(401)
            elif self.path in index.redirects:
                self.send_response(302)
                self.send_header("Location", index.redirects[self.path])
                self.end_headers()
            elif self.path in index.answers:
                kind, data = index.answers[self.path]
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            else:
                self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    servers.append(server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    index.address = f"http://127.0.0.1:{server.server_port}"
    return index


@pytest.fixture
def index(
    servers: list[ThreadingHTTPServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Index:
    """The index that pip is configured to use; an empty cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    index = serve(servers)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.address}/simple")
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    return index


def malicious(marker: Path) -> bytes:
    """A source archive that leaves a mark when its code runs, by any way of building it."""
    mark = f"import pathlib\npathlib.Path({str(marker)!r}).write_text('run')\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (
            ("setup.py", mark),
            ("backend.py", mark),
            ("pyproject.toml", project),
            ("texts/a.txt", "a text"),
        ):
            entry = tarfile.TarInfo(f"thing_of_ours-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def pinned(data: bytes) -> Archive:
    """An archive of these bytes."""
    return Archive(requirement=REQUIREMENT, sha256=hashlib.sha256(data).hexdigest())


def test_nothing_of_an_archive_is_run(index: Index, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = malicious(marker)
    archive = pinned(data)
    index.answers["/files/" + FILE] = ("application/gzip", data)
    index.page(f"../../files/{FILE}#sha256={archive.sha256}")
    (path,) = fetch_archives([archive], offline=False).values()
    assert path.read_bytes() == data
    assert path == tmp_path / "cache" / "archives" / archive.sha256 / FILE
    index.answers.clear()
    assert fetch_archives([archive], offline=True) == {archive.sha256: path}
    assert not marker.exists()


@pytest.mark.parametrize("told", ["right", "nothing"])
def test_other_bytes_are_refused(index: Index, tmp_path: Path, told: str) -> None:
    marker = tmp_path / "marker"
    archive = pinned(b"what was pinned")
    index.answers["/" + FILE] = ("application/gzip", malicious(marker))
    index.page(f"/{FILE}" + (f"#sha256={archive.sha256}" if told == "right" else ""))
    with pytest.raises(UserError, match="is not the pinned archive"):
        fetch_archives([archive], offline=False)
    assert not marker.exists()
    assert not any((tmp_path / "cache" / "archives").iterdir())


def test_an_index_that_tells_another_digest_is_not_asked_for_the_file(index: Index) -> None:
    index.page(f"/{FILE}#sha256={'0' * 64}")
    with pytest.raises(UserError, match="is the pinned archive") as raised:
        fetch_archives([pinned(b"x")], offline=False)
    assert raised.value.found is not None and FILE in raised.value.found
    assert [path for path, _ in index.asked] == ["/simple/thing-of-ours/"]


def test_the_index_may_answer_in_json(index: Index) -> None:
    archive = pinned(b"some bytes")
    files = [
        {"filename": "thing_of_ours-1.0-py3-none-any.whl", "url": "/w.whl", "hashes": {}},
        {"filename": FILE, "url": "/deep/x?y=1", "hashes": {"sha256": archive.sha256}},
    ]
    page = json.dumps({"files": files}).encode()
    index.answers["/simple/thing-of-ours/"] = (JSON_TYPE, page)
    index.answers["/deep/x?y=1"] = ("application/gzip", b"some bytes")
    (path,) = fetch_archives([archive], offline=False).values()
    assert path.name == FILE


def test_files_without_digests_are_found_by_name(index: Index) -> None:
    archive = pinned(b"1.0")
    index.page("/thing-of-ours-1.0.1.tar.gz", "/thing_of_ours-1.0-py3-none-any.whl", f"/{FILE}")
    index.answers["/" + FILE] = ("application/gzip", b"1.0")
    assert fetch_archives([archive], offline=False)
    assert [path for path, _ in index.asked][1:] == ["/" + FILE]


def test_a_file_name_cannot_leave_the_cache(index: Index, tmp_path: Path) -> None:
    archive = pinned(b"x")
    files = [{"filename": "../../x", "url": "/x", "hashes": {"sha256": archive.sha256}}]
    index.answers["/simple/thing-of-ours/"] = (JSON_TYPE, json.dumps({"files": files}).encode())
    index.answers["/x"] = ("text/plain", b"x")
    with pytest.raises(UserError, match="cannot be stored"):
        fetch_archives([archive], offline=False)
    assert not (tmp_path / "x").exists() and not (tmp_path / "cache" / "x").exists()


def test_passwords_go_to_their_own_host_only(
    index: Index, servers: list[ThreadingHTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serve(servers)
    index.user = "me:secret word"
    host = index.address.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret%20word@{host}/simple")
    archive = pinned(b"x")
    elsewhere = other.address.replace("127.0.0.1", "localhost")
    index.page(f"/{FILE}#sha256={archive.sha256}")
    index.redirects["/" + FILE] = f"{elsewhere}/{FILE}"
    other.answers["/" + FILE] = ("application/gzip", b"x")
    assert fetch_archives([archive], offline=False)
    assert other.asked == [("/" + FILE, None)]
    index.user = "another"
    with pytest.raises(SetupError, match="does not answer") as raised:
        fetch_archives([Archive(requirement=REQUIREMENT, sha256="0" * 64)], offline=False)
    assert "401" in str(raised.value) and "secret" not in str(raised.value)


def test_the_next_index_is_asked_for_what_the_first_has_not(
    index: Index, servers: list[ThreadingHTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serve(servers)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{other.address}/simple/")
    archive = pinned(b"x")
    with pytest.raises(UserError, match=f"has no file of {REQUIREMENT}"):
        fetch_archives([archive], offline=False)
    other.page(f"/{FILE}#sha256={archive.sha256}")
    other.answers["/" + FILE] = ("application/gzip", b"x")
    assert fetch_archives([archive], offline=False)


def test_a_folder_may_be_the_index(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index" / "thing-of-ours"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(b"x")
    (folder / "index.html").write_text(f"<a href='{FILE}'>{FILE}</a>")
    monkeypatch.setenv("PIP_INDEX_URL", str(tmp_path / "index"))
    assert fetch_archives([pinned(b"x")], offline=False)
    assert index.asked == []


def test_a_machine_without_network_or_index_is_told_so(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(SetupError, match="does not answer"):
        fetch_archives([pinned(b"x")], offline=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match="no-index"):
        fetch_archives([pinned(b"x")], offline=False)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CERT", "/no/such/file")
    with pytest.raises(SetupError, match="certificate"):
        fetch_archives([pinned(b"x")], offline=False)


def test_pip_tells_its_own_index_where_none_is_configured(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "one.example two.example:8080")
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    settings = pip_settings()
    (address,) = settings.indexes
    assert address.startswith("https://") and address.rstrip("/").endswith("/simple")
    assert settings.trusted_hosts == {"one.example", "two.example:8080"}
    assert settings.timeout_seconds == 7


@pytest.mark.parametrize("requirement", ["--index-url==x", "-r==1", "thing==-1", "thing", "==1"])
def test_a_requirement_is_a_name_and_a_version(requirement: str) -> None:
    with pytest.raises(ValidationError):
        Archive(requirement=requirement, sha256="0" * 64)
