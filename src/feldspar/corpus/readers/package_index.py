"""Download files of a Python package index, in its simple form (PEP 503 and PEP 691).

Nothing of what is downloaded is run or built; the index is that of pip's configuration.
"""

import json
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from importlib import import_module
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import (
    BaseHandler,
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithPriorAuth,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from feldspar import __version__
from feldspar.core.errors import SetupError, UserError
from feldspar.corpus.readers.pip_settings import PipSettings

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{JSON_TYPE}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_SDIST = re.compile(r"\.(tar\.gz|tar\.bz2|tar\.xz|tgz|zip)$")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_ATTEMPTS = 3
_BLOCK_BYTES = 1 << 20
_NOT_FOUND = 404
_SERVER_FAULT = 500


@dataclass(frozen=True)
class IndexFile:
    """One file that an index offers; ``sha256`` is what the index says of it, if anything."""

    name: str
    address: str
    sha256: str | None


class PackageIndex:
    """The indexes of ``settings``, asked in their order."""

    def __init__(self, settings: PipSettings) -> None:
        self._settings = settings
        self._opener = _opener(settings)

    def candidates(self, requirement: str, sha256: str) -> list[IndexFile]:
        """Find the files that may be the one of ``name==version`` with the given digest.

        These are the files of that digest; without one, source archives of which the index tells
        no digest. Raises UserError when the files of this version have other digests, or there are
        none; SetupError when an index does not answer.
        """
        name, _, version = requirement.partition("==")
        offered = list(self._offered(name))
        exact = [file for file in offered if file.sha256 == sha256]
        if exact:
            return exact[:1]
        own = [file for file in offered if _is_of(file.name, name, version)]
        unknown = [file for file in own if file.sha256 is None]
        if unknown:
            return [file for file in unknown if _SDIST.search(file.name)] or unknown
        if own:
            found = ", ".join(f"{file.name} {file.sha256}" for file in own if file.sha256)
            raise UserError(
                f"no file of {requirement} in the package index is the pinned archive: "
                f"expected sha256 {sha256}",
                found=found,
                do="correct the digest in the recipe, or use an index that has the file",
            )
        raise UserError(
            f"the package index has no file of {requirement}",
            where=", ".join(map(_without_user, self._settings.indexes)),
            do="correct the name and the version in the recipe, or configure another index in pip",
        )

    def download(self, file: IndexFile, folder: Path) -> Path:
        """Download a file into ``folder``. Raises SetupError when its index does not answer."""
        if not _FILE_NAME.fullmatch(file.name):
            raise UserError("the package index names a file that cannot be stored", found=file.name)
        target = folder / file.name

        def store(response: HTTPResponse) -> None:
            length = response.headers.get("Content-Length")
            written = 0
            with target.open("wb") as out:
                while block := response.read(_BLOCK_BYTES):
                    written += out.write(block)
            if length is not None and written != int(length):
                raise ConnectionError(f"{written} of {length} bytes came")

        self._answer(file.address, store)
        return target

    def _offered(self, project: str) -> Iterator[IndexFile]:
        normal = _normal(project)
        for index in self._settings.indexes:
            address = f"{index.rstrip('/')}/{normal}/"
            if urlsplit(address).scheme == "file":
                address += "index.html"
            files: list[IndexFile] = []

            def read(response: HTTPResponse, files: list[IndexFile] = files) -> None:
                files[:] = _files_of(response)

            try:
                self._answer(address, read)
            except _MissingError:
                continue
            yield from files

    def _answer(self, address: str, use: Callable[[HTTPResponse], None]) -> None:
        """Give ``use`` the answer of ``address``; try again when the connection breaks."""
        request = Request(
            _without_user(address),
            headers={"Accept": _ACCEPT, "User-Agent": f"feldspar/{__version__}"},
        )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._opener.open(request, timeout=self._settings.timeout_seconds) as response:
                    use(response)
                return
            except HTTPError as error:
                if error.code == _NOT_FOUND:
                    raise _MissingError from error
                if error.code < _SERVER_FAULT or attempt == _ATTEMPTS:
                    raise _unreachable(address, f"{error.code} {error.reason}") from error
            except FileNotFoundError as error:
                raise _MissingError from error
            except (OSError, HTTPException, ValueError) as error:
                if attempt == _ATTEMPTS:
                    raise _unreachable(address, str(error)) from error


class _MissingError(Exception):
    """An index has no page of the project."""


def _unreachable(address: str, reason: str) -> SetupError:
    return SetupError(
        f"the package index does not answer: {_without_user(address)}",
        found=reason,
        do="check the network and pip's configuration, then give the same command again",
    )


def _opener(settings: PipSettings) -> OpenerDirector:
    passwords = HTTPPasswordMgrWithPriorAuth()
    for index in settings.indexes:
        parts = urlsplit(index)
        user, password = _credentials(index)
        if user is not None and parts.hostname is not None:
            home = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/", "", ""))
            passwords.add_password(None, home, user, password or "", is_authenticated=True)
    handlers: list[BaseHandler] = [HTTPBasicAuthHandler(passwords), _Https(settings)]
    if settings.proxy is not None:
        handlers.append(ProxyHandler({"http": settings.proxy, "https": settings.proxy}))
    return build_opener(*handlers)


class _Https(HTTPSHandler):
    """Checks certificates as pip does: not those of hosts that it is told to trust."""

    def __init__(self, settings: PipSettings) -> None:
        super().__init__()
        self._trusted = settings.trusted_hosts
        self._checking = _context(settings)
        self._trusting = _context(settings)
        self._trusting.check_hostname = False
        self._trusting.verify_mode = ssl.CERT_NONE

    def https_open(self, req: Request) -> HTTPResponse:
        """Open an address with the context of its host."""
        host = req.host
        trusted = host in self._trusted or host.rpartition(":")[0] in self._trusted
        context = self._trusting if trusted else self._checking
        return self.do_open(HTTPSConnection, req, context=context)


def _context(settings: PipSettings) -> ssl.SSLContext:
    """Trust pip's certificates; without any the system's, and those of certifi where it is."""
    given = settings.certificates
    try:
        if given is None:
            context = ssl.create_default_context()
            if find_spec("certifi") is not None:
                context.load_verify_locations(import_module("certifi").where())
        elif Path(given).is_dir():
            context = ssl.create_default_context(capath=given)
        else:
            context = ssl.create_default_context(cafile=given)
        if settings.client_certificate is not None:
            context.load_cert_chain(settings.client_certificate)
    except OSError as error:
        raise SetupError(
            f"a certificate of pip's configuration cannot be read: {error}",
            do="correct cert or client-cert in pip's configuration",
        ) from error
    return context


def _credentials(index: str) -> tuple[str | None, str | None]:
    """Return user and password of an address, or those of ~/.netrc for its host."""
    parts = urlsplit(index)
    if parts.username is not None:
        return unquote(parts.username), unquote(parts.password or "")
    try:
        found = netrc().authenticators(parts.hostname or "")
    except (OSError, NetrcParseError):
        return None, None
    return (found[0], found[2]) if found else (None, None)


def _without_user(address: str) -> str:
    """Return an address without user and password, which stay secret in messages."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _files_of(response: HTTPResponse) -> list[IndexFile]:
    """List the files that a project's page names."""
    base = response.url
    data = response.read()
    if response.headers.get_content_type() == JSON_TYPE:
        return _json_files(data, base)
    page = _Page(base)
    page.feed(data.decode("utf-8", "replace"))
    return page.files


def _json_files(data: bytes, base: str) -> list[IndexFile]:
    try:
        return [
            IndexFile(
                str(file["filename"]),
                urljoin(base, str(file["url"])),
                file.get("hashes", {}).get("sha256"),
            )
            for file in json.loads(data)["files"]
        ]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not the list of a project's files: {error}") from error


class _Page(HTMLParser):
    """Collects the links of a project's page in HTML."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.files: list[IndexFile] = []
        self._base = base

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an anchor for a file, and its fragment for the digest."""
        target = dict(attrs).get("href")
        if target is None:
            return
        if tag == "base":
            self._base = urljoin(self._base, target)
        elif tag == "a":
            address, fragment = urldefrag(urljoin(self._base, target))
            name = PurePosixPath(unquote(urlsplit(address).path)).name
            kind, _, digest = fragment.partition("=")
            self.files.append(IndexFile(name, address, digest if kind == "sha256" else None))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_of(file: str, name: str, version: str) -> bool:
    """Tell whether a file's name is that of a source archive or a wheel of this version."""
    if file.endswith(".whl"):
        parts = file.split("-")
        return [_normal(part) for part in parts[:2]] == [_normal(name), _normal(version)]
    stem = _SDIST.sub("", file)
    return stem != file and _normal(stem) == _normal(f"{name}-{version}")
