"""Read from the package's own metadata what feldspar and each of its extras need, and what is here.

``pyproject.toml`` is the only list of packages; an installed package carries it as metadata. Here
is only what each extra is for, in words.
"""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

USES = {
    "quickstart": "quickstart: all that it needs",
    "data": "corpus, tokens, quickstart: Parquet, Zstandard, text mended by ftfy",
    "hf": "import, export, adapt, release, quickstart: models of transformers",
    "report": "report, results, reproduce, quickstart: figures and pages",
    "chat": "chat, and training on conversations",
    "fast": "corpus dedup, corpus build: several times as fast",
    "sparse": "train: fast products of sparse matrices on a processor",
    "web": "corpus build: web archives (WARC)",
    "hub": "corpus build: data sets of Hugging Face",
    "lang": "corpus build: the filter of languages",
    "scale": "corpus dedup, corpus build: many machines, by Ray",
    "upload": "release: upload to a hub of models",
    "eval": "evaluate: tasks of lm-eval",
    "search": "transfer: search by Optuna",
    "track-tensorboard": "train: figures for TensorBoard",
    "gguf": "import, export: files of llama.cpp",
    "vision": "vision: images and their networks",
    "detection": "vision: detectors, and COCO's figures",
    "timm": "vision: networks of timm, and networks for timm",
    "onnx": "vision export: ONNX",
}
"""The commands that an extra serves, and with what. Extras for developers are not named."""


@dataclass(frozen=True)
class Package:
    """A package that is needed, and the version that is installed."""

    requirement: Requirement
    version: str | None
    """None if it is not installed."""

    @property
    def name(self) -> str:
        """Return its name."""
        return self.requirement.name

    @property
    def fits(self) -> bool:
        """Tell whether it is installed in a version that is admitted."""
        admitted = self.requirement.specifier
        return self.version is not None and admitted.contains(self.version, prereleases=True)

    def __str__(self) -> str:
        wanted = f"{self.name}{self.requirement.specifier}"
        return wanted if self.version is None else f"{wanted} (found {self.version})"


@dataclass(frozen=True)
class Extra:
    """An extra, or under the name "" what every installation needs."""

    name: str
    packages: tuple[Package, ...]

    @property
    def unfit(self) -> tuple[Package, ...]:
        """Return the packages that are missing or of a version that is not admitted."""
        return tuple(package for package in self.packages if not package.fits)

    @property
    def install(self) -> str:
        """Return the command that installs it.

        pip takes the feldspar that is installed, and brings packages of other versions into range.
        Told to upgrade, it would look for another feldspar.
        """
        return f"pip install 'feldspar[{self.name}]'" if self.name else "pip install feldspar"


def own_requirements() -> list[str] | None:
    """Return the requirement lines of feldspar; None where it was not installed."""
    try:
        return importlib.metadata.requires("feldspar") or []
    except importlib.metadata.PackageNotFoundError:
        return None


def admitted_python() -> SpecifierSet:
    """Return the versions of Python that feldspar admits; all where it was not installed."""
    try:
        return SpecifierSet(importlib.metadata.metadata("feldspar")["Requires-Python"] or "")
    except importlib.metadata.PackageNotFoundError:
        return SpecifierSet()


def examine(requirements: Iterable[str], extra: str) -> Extra:
    """Look up the packages of an extra, with those of the extras that it names."""
    lines = [Requirement(line) for line in requirements]
    own = [line for line in lines if canonicalize_name(line.name) == "feldspar"]
    names = {extra}
    while added := {name for line in own for name in line.extras - names if _belongs(line, names)}:
        names |= added
    needed = [line for line in lines if line not in own and _belongs(line, names)]
    return Extra(extra, tuple(Package(line, installed_version(line.name)) for line in needed))


def _belongs(line: Requirement, extras: set[str]) -> bool:
    """Tell whether one of the extras brings a requirement on this machine."""
    if line.marker is None:
        return "" in extras
    if extras != {""} and line.marker.evaluate({"extra": ""}):
        return False  # every installation has it
    return any(line.marker.evaluate({"extra": extra}) for extra in extras)


def installed_version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
