"""Pinned archives of the package index: downloaded by pip, checked by SHA-256, cached."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from feldspar.core.errors import SetupError, UserError
from feldspar.core.files import sha256_of_file
from feldspar.core.progress import progress
from feldspar.corpus.settings import Archive

PARALLEL_DOWNLOADS = 4


def cache_folder() -> Path:
    """Where downloads are kept: FELDSPAR_CACHE, else XDG_CACHE_HOME/feldspar, else ~/.cache."""
    if chosen := os.environ.get("FELDSPAR_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "feldspar"


def cached_archive(archive: Archive) -> Path | None:
    """The cached file of ``archive``, checked; None when there is none.

    Raises UserError when the file's digest is not the pinned one.
    """
    folder = cache_folder() / "archives" / archive.sha256
    files = sorted(path for path in folder.glob("*") if path.is_file())
    if not files:
        return None
    _check(files[0], archive)
    return files[0]


def fetch_archives(archives: Iterable[Archive], offline: bool) -> dict[str, Path]:
    """The file of each archive by digest; those not yet cached are downloaded side by side.

    Raises UserError when a digest differs, or when something is missing and ``offline`` is set;
    SetupError when pip cannot download.
    """
    wanted = {archive.sha256: archive for archive in archives}
    cached = {digest: cached_archive(archive) for digest, archive in wanted.items()}
    missing = [wanted[digest] for digest, path in cached.items() if path is None]
    if missing and offline:
        names = ", ".join(archive.requirement for archive in missing)
        raise UserError(
            f"not in the cache, and downloads are off: {names}",
            where=str(cache_folder()),
            do="run once without --offline",
        )
    fetched = {digest: path for digest, path in cached.items() if path is not None}
    if missing:
        with (
            progress("download", len(missing), "archives") as advance,
            ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
        ):
            for archive, path in zip(missing, pool.map(_download, missing), strict=True):
                fetched[archive.sha256] = path
                advance(1)
    return fetched


def _download(archive: Archive) -> Path:
    target = cache_folder() / "archives" / archive.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    name = archive.requirement.split("==")[0]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", name, "-d", folder, archive.requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        files = sorted(Path(folder).iterdir())
        if result.returncode != 0 or len(files) != 1:
            lines = result.stderr.strip().splitlines() or ["pip said nothing"]
            raise SetupError(
                f"pip could not download {archive.requirement}",
                found=lines[-1],
                do="check the network and the package index, then give the same command again",
            )
        _check(files[0], archive)
        target.mkdir(exist_ok=True)
        return files[0].replace(target / files[0].name)


def _check(path: Path, archive: Archive) -> None:
    found = sha256_of_file(path)
    if found != archive.sha256:
        raise UserError(
            f"{path.name} ({archive.requirement}) is not the pinned archive: "
            f"expected sha256 {archive.sha256}, found {found}",
            where=str(path),
            do="correct the digest in the recipe, or delete the file if the cache is damaged",
        )
