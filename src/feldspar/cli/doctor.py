"""``feldspar doctor``: what this machine has, and what is missing for which command."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

EXTRAS = {
    "data": ("pyarrow", "zstandard", "ftfy"),
    "fast": ("numba",),
    "sparse": ("llvmlite",),
    "hf": ("transformers",),
    "report": ("matplotlib", "jinja2"),
    "chat": ("jinja2",),
    "track-tensorboard": ("tensorboard",),
    "eval": ("lm_eval",),
    "scale": ("ray",),
}
QUICKSTART_EXTRAS = ("data", "hf", "report")
NEEDED_DISK_BYTES = 2 * 10**9


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> int:
        """Check the machine; exit 1 when the quickstart would not run. Example: feldspar doctor"""
        from feldspar.cli.console import print_json
        from feldspar.cli.tables import print_table

        facts = machine_facts()
        problems = [
            f"the extra {name} lacks {', '.join(packages)}: pip install 'feldspar[{name}]'"
            for name in QUICKSTART_EXTRAS
            if (packages := missing_packages(name))
        ]
        free = shutil.disk_usage(Path.cwd()).free
        if free < NEEDED_DISK_BYTES:
            problems.append(f"only {free / 1e9:.1f} GB are free here; the quickstart needs 2")
        if json:
            print_json({"machine": facts, "problems": problems})
        else:
            print_table(("", ""), facts.items(), left=2)
            typer.echo("\n".join(problems) if problems else "the quickstart can run here")
        return 1 if problems else 0


def machine_facts() -> dict[str, str]:
    """Versions, cores, devices and the state of each extra."""
    import torch

    from feldspar import __version__
    from feldspar.core.execution import available_cores

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    facts = {
        "feldspar": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": str(available_cores()),
        "cuda device": device,
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }
    for name in EXTRAS:
        missing = missing_packages(name)
        facts[f"extra {name}"] = f"missing {', '.join(missing)}" if missing else "ready"
    return facts


def missing_packages(extra: str) -> list[str]:
    """Packages of an extra that are not installed."""
    missing = []
    for package in EXTRAS[extra]:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    return missing
