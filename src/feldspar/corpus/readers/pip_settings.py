"""Read from pip where packages come from: its indexes, certificates and proxies."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from feldspar.core.errors import SetupError

_DEFAULT_INDEX = re.compile(r"--index-url.*?\(default\s+(\S+?)\)", re.DOTALL)
_WIDE = "1000"
"""Columns of a help text in which no address is broken into two lines."""
_PLACES = ("global", "download", ":env:")
"""Sections of pip's configuration that its command download obeys; later ones win."""
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables with a file of certificates, which pip obeys too."""


@dataclass(frozen=True)
class PipSettings:
    """Pip's configuration; ``indexes`` are asked in their order."""

    indexes: tuple[str, ...]
    trusted_hosts: frozenset[str] = frozenset()
    """Hosts (with or without a port) whose certificates are not checked."""
    certificates: str | None = None
    client_certificate: str | None = None
    proxy: str | None = None
    timeout_seconds: float = 15.0


def pip_settings() -> PipSettings:
    """Ask pip for its configuration: files, environment, and the index it uses by default.

    Raises SetupError when pip is missing, cannot read its files, or may use no index.
    """
    values = _values(_pip("config", "list"))
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise SetupError(
            "pip is configured to use no package index (no-index)",
            do="allow an index, or fill feldspar's cache on a machine that has one",
        )
    indexes = [*values.get("index-url", "").split()[:1], *values.get("extra-index-url", "").split()]
    if "index-url" not in values:
        indexes.insert(0, _default_index())
    certificates = (values.get("cert"), *map(os.environ.get, _BUNDLES))
    return PipSettings(
        indexes=tuple(_address(index) for index in indexes),
        trusted_hosts=frozenset(values.get("trusted-host", "").split()),
        certificates=next(filter(None, certificates), None),
        client_certificate=values.get("client-cert"),
        proxy=values.get("proxy"),
        timeout_seconds=float(values.get("timeout", values.get("default-timeout", "15"))),
    )


def _values(listing: str) -> dict[str, str]:
    """Return the values in force, by key, of the lines ``section.key='value'``."""
    found: dict[str, dict[str, str]] = {place: {} for place in _PLACES}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        place, _, key = name.rpartition(".")
        if place in found:
            found[place][key] = str(ast.literal_eval(value))
    return {key: value for place in _PLACES for key, value in found[place].items()}


def _default_index() -> str:
    match = _DEFAULT_INDEX.search(_pip("download", "--help"))
    if match is None:
        raise SetupError(
            "pip does not say which package index it uses",
            do="name the index, for example with PIP_INDEX_URL",
        )
    return match.group(1)


def _address(index: str) -> str:
    """Return the address of an index, which may also be a folder on this machine."""
    return index if "://" in index else Path(index).expanduser().absolute().as_uri()


def _pip(*arguments: str) -> str:
    """Run pip and return its output."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "COLUMNS": _WIDE}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["pip said nothing"]
        raise SetupError(
            "pip does not tell its configuration, which names the package index",
            found=lines[-1],
            do="install pip into this environment, or correct its configuration",
        )
    return result.stdout
