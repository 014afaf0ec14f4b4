"""A hub of models on this machine, with the part of its protocol that ``huggingface_hub`` speaks.

Repositories lie in memory: each branch is a mapping from names to bytes.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token_of_the_test"
Files = dict[str, bytes]


def commit_of(files: Files) -> str:
    """A commit's name: it depends on the content only."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return hashlib.sha1(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def git_oid(data: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """The server and its repositories."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, Files]] = {}
        self.objects: Files = {}
        self.uploaded: list[str] = []
        """Large files that were sent, by their SHA-256."""

    def at(self, repository: str, revision: str) -> Files | None:
        """The files at a branch or a commit."""
        branches = self.branches.get(repository, {})
        if revision in branches:
            return branches[revision]
        return next((each for each in branches.values() if commit_of(each) == revision), None)


@contextmanager
def running_hub() -> Generator[FakeHub]:
    """A hub that answers until the block ends."""
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_request(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Make repositories and branches, take commits and announcements of large files."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json(401, {"error": "Invalid username or password."})
        elif path == "/api/validate-yaml":
            self._json(200, {"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/(.+/.+)/branch/(.+)", path):
            self._branch(*found.groups())
        elif found := re.fullmatch(r"/api/models/(.+/.+)/preupload/(.+)", path):
            self._preupload(*found.groups(), json.loads(body))
        elif found := re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/models/(.+/.+)/commit/(.+)", path):
            self._commit(*found.groups(), [json.loads(line) for line in body.splitlines()])
        else:
            self._json(404, {"error": f"no such place: {path}"})

    def do_PUT(self) -> None:
        """Take a large file."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rsplit("/", 1)[-1]
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.objects[digest] = data
        self.server.uploaded.append(digest)
        self._send(200, b"")

    def do_GET(self) -> None:
        """Tell about a revision, list its files, or give one."""
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._revision(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            self._tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        else:
            self._json(404, {"error": f"no such place: {path}"})

    def do_HEAD(self) -> None:
        """Tell about a file without its content."""
        self.do_GET()

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.branches:
            self._json(409, {"error": "exists", "url": f"{self.server.address}/{name}"})
            return
        self.server.private[name] = wanted.get("visibility") == "private" or wanted.get(
            "private", False
        )
        self.server.branches[name] = {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}}
        self._json(200, {"url": f"{self.server.address}/{name}"})

    def _branch(self, name: str, branch: str) -> None:
        branches = self.server.branches[name]
        if branch in branches:
            self._json(409, {"error": "exists"})
            return
        branches[branch] = dict(branches["main"])
        self._json(200, {})

    def _preupload(self, name: str, branch: str, wanted: dict[str, Any]) -> None:
        present = self.server.branches[name][branch]
        answers = []
        for file in wanted["files"]:
            path = file["path"]
            large = path.endswith((".safetensors", ".npy"))
            old = present.get(path)
            oid = (
                None if old is None else hashlib.sha256(old).hexdigest() if large else git_oid(old)
            )
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": oid,
                }
            )
        self._json(200, {"files": answers})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for each in wanted["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.objects:
                href = f"{self.server.address}/store/{each['oid']}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(answer)
        self._json(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.branches[name][branch])
        for line in lines:
            value = line["value"]
            if line["key"] == "deletedFile":
                files.pop(value["path"])
            elif line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        self.server.branches[name][branch] = files
        commit = commit_of(files)
        url = f"{self.server.address}/{name}/commit/{commit}"
        self._json(200, {"commitUrl": url, "commitOid": commit})

    def _revision(self, name: str, revision: str) -> None:
        files = self.server.at(name, revision)
        if files is None:
            self._json(404, {"error": "not found"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": path} for path in files]
        self._json(
            200, {"id": name, "sha": commit_of(files), "siblings": siblings, "private": True}
        )

    def _tree(self, name: str, revision: str) -> None:
        files = self.server.at(name, revision) or {}
        self._json(
            200,
            [
                {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
                for path, data in files.items()
            ],
        )

    def _resolve(self, name: str, revision: str, path: str) -> None:
        files = self.server.at(name, revision)
        if files is None or path not in files:
            self._json(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": commit_of(files), "ETag": f'"{git_oid(files[path])}"'}
        self._send(200, files[path], headers)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
