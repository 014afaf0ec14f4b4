"""Say which code computes: versions of packages, and the commit where feldspar is a checkout."""

import platform
import subprocess
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.requirements import installed_version

PACKAGES = ("torch", "numpy", "tokenizers", "safetensors")
SECONDS = 10


def software() -> dict[str, Any]:
    """Return versions; ``commit`` and ``changed`` only where feldspar runs from a checkout."""
    versions = {name: found for name in PACKAGES if (found := installed_version(name)) is not None}
    return {"feldspar": __version__, "python": platform.python_version(), **versions} | _commit()


def _commit() -> dict[str, Any]:
    """Return the commit of the checkout, and whether its files differ from the commit."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return {}
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return {}
    return {"commit": commit.strip(), "changed": bool(changes.strip())}


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
