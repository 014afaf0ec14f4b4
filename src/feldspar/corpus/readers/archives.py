"""Fetch pinned archives of the package index: compared with their SHA-256, cached, never built."""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.files import cache_folder, sha256_of_file
from feldspar.core.progress import progress
from feldspar.corpus.readers.package_index import PackageIndex
from feldspar.corpus.readers.pip_settings import pip_settings
from feldspar.recipe.sections.readers import Archive

PARALLEL_DOWNLOADS = 4


def cached_archive(archive: Archive) -> Path | None:
    """Return the cached file of ``archive`` after checking it; None without one.

    Raises UserError when the file's digest is not the pinned one.
    """
    folder = cache_folder() / "archives" / archive.sha256
    files = sorted(path for path in folder.glob("*") if path.is_file())
    if not files:
        return None
    _check(files[0], archive)
    return files[0]


def fetch_archives(archives: Iterable[Archive], offline: bool) -> dict[str, Path]:
    """Return the file of each archive by digest; download missing ones side by side.

    Raises UserError when a digest differs, or when something is missing and ``offline`` is set;
    SetupError when the package index does not answer.
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
        index = PackageIndex(pip_settings())
        with (
            progress("download", len(missing), "archives") as advance,
            ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
        ):
            for archive, path in zip(
                missing, pool.map(partial(_download, index), missing), strict=True
            ):
                fetched[archive.sha256] = path
                advance(1)
    return fetched


def _download(index: PackageIndex, archive: Archive) -> Path:
    target = cache_folder() / "archives" / archive.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as folder:
        candidates = index.candidates(archive.requirement, archive.sha256)
        paths = [index.download(file, Path(folder)) for file in candidates]
        path = {sha256_of_file(path): path for path in paths}.get(archive.sha256, paths[0])
        _check(path, archive)
        target.mkdir(exist_ok=True)
        return path.replace(target / path.name)


def _check(path: Path, archive: Archive) -> None:
    found = sha256_of_file(path)
    if found != archive.sha256:
        raise UserError(
            f"{path.name} ({archive.requirement}) is not the pinned archive: "
            f"expected sha256 {archive.sha256}, found {found}",
            where=str(path),
            do="correct the digest in the recipe, or delete the file if the cache is damaged",
        )
