"""Check the wheel and the sdist of ``make dist``: whole, and at work without the checkout.

python scripts/check_distributions.py [--dist FOLDER] [--work FOLDER]

The sdist must hold every file of the repository, and the wheel every file of the package, with the
same bytes. The wheel was built from the sdist, so the sdist builds too.

The wheel is then installed into three environments that know no checkout. ``plain`` sees what
``pip install feldspar`` would bring: it prints its version, tells what the quickstart lacks, and
plans the shipped recipes. ``quickstart`` sees what ``pip install 'feldspar[quickstart]'`` would
bring: it must be able to run the quickstart. ``all`` plans every shipped recipe. Packages are not
installed again: the environments hold links to those of the Python that runs this script.
``--work`` keeps the environments.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/feldspar/"
PLANS = """
import json
import sys
from pathlib import Path

import feldspar
from feldspar.api.recipes import plan
from feldspar.evaluate.programs.problems import SHIPPED

assert Path(feldspar.__file__).is_relative_to(sys.prefix), feldspar.__file__
assert all(path.is_file() for path in SHIPPED.values())
planned = []
for name in feldspar.shipped_recipes():
    try:
        assert plan(name).summary(), name
        planned.append(name)
    except feldspar.SetupError as error:
        assert "pip install 'feldspar[" in error.do, error
print(json.dumps([planned, list(feldspar.shipped_recipes())]))
"""
"""Plans what can be planned without further extras; every refusal must name an extra."""


def main() -> None:
    """Check the two files; the first fault ends the script with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the two files")
    parser.add_argument("--work", type=Path, help="keep the environments in this new folder")
    given = parser.parse_args()
    sdist, wheel = (only(given.dist, pattern) for pattern in ("*.tar.gz", "*.whl"))
    tracked = repository_files()
    compare("sdist", sdist_files(sdist), {name: ROOT / name for name in tracked})
    compare("wheel", wheel_files(wheel), wheel_places(wheel, tracked))
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        check_plain(work / "plain", wheel)
        check_quickstart(work / "quickstart", wheel)
        check_all(work / "all", wheel)


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of that kind."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} holds {len(found)} files {pattern}, not one: run `make dist`")
    return found[0].resolve()


def repository_files() -> list[str]:
    """Return the files that git knows and that are still there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    found = subprocess.run([*command, "--exclude-standard"], capture_output=True, check=True)
    names = found.stdout.decode().split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def sdist_files(path: Path) -> dict[str, bytes]:
    """Return the files of an sdist by their names below its folder."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {
            member.name.split("/", 1)[1]: archive.extractfile(member).read()  # type: ignore
            for member in members
        }


def wheel_files(path: Path) -> dict[str, bytes]:
    """Return the files of a wheel by their names."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def wheel_places(wheel: Path, tracked: list[str]) -> dict[str, Path]:
    """Return the files that a wheel must hold, and from where."""
    version = wheel.name.split("-")[1]
    licences = f"feldspar-{version}.dist-info/licenses"
    places = {
        f"feldspar/{name.removeprefix(PACKAGE)}": ROOT / name
        for name in tracked
        if name.startswith(PACKAGE)
    }
    for name in tracked:
        if Path(name).name.startswith("LICENSE"):
            places[f"{licences}/{name}"] = ROOT / name
    return places


def compare(what: str, held: dict[str, bytes], wanted: dict[str, Path]) -> None:
    """End unless ``held`` has every wanted file with the same bytes."""
    missing = sorted(wanted.keys() - held.keys())
    if missing:
        sys.exit(f"the {what} lacks {len(missing)} files: {', '.join(missing[:10])}")
    changed = [name for name, path in wanted.items() if path.read_bytes() != held[name]]
    if changed:
        sys.exit(f"the {what} holds other bytes: {', '.join(changed[:10])}: run `make dist` again")
    print(f"{what}: {len(wanted)} files, all there")


def check_plain(folder: Path, wheel: Path) -> None:
    """Check what the package does without any extra."""
    make_environment(folder, wheel, extra="")
    version = call(folder, "feldspar", "--version").strip()
    assert f"-{version}-" in wheel.name, version
    found = json.loads(call(folder, "feldspar", "doctor", "--json", code=1))
    assert "pip install 'feldspar[quickstart]'" in [each["do"] for each in found["findings"]], found
    planned, shipped = json.loads(call(folder, "python", "-c", PLANS))
    assert "quickstart" in planned
    print(f"plain: feldspar {version}, {len(planned)} of {len(shipped)} recipes planned")


def check_all(folder: Path, wheel: Path) -> None:
    """Check that every recipe is planned where all extras are installed."""
    make_environment(folder, wheel, extra="all")
    planned, shipped = json.loads(call(folder, "python", "-c", PLANS))
    assert planned == shipped, set(shipped) - set(planned)
    print(f"all: {len(planned)} of {len(shipped)} recipes planned")


def check_quickstart(folder: Path, wheel: Path) -> None:
    """Check that the quickstart's extra brings all that the quickstart needs."""
    make_environment(folder, wheel, extra="quickstart")
    call(folder, "feldspar", "doctor")
    print("quickstart: the doctor finds nothing missing")


def make_environment(folder: Path, wheel: Path, extra: str) -> None:
    """Install the wheel into a new environment that sees its requirements and nothing else."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, env=clean_variables(), check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (own,) = importlib.metadata.distributions(name="feldspar", path=[str(site)])
    for name in closure(own.requires or [], extra):
        link(importlib.metadata.distribution(name), site)


def closure(requirements: list[str], extra: str) -> set[str]:
    """Return the names of all packages that the requirements bring here, directly or not."""
    found: set[str] = set()
    waiting = [(line, extra) for line in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        line, wanted = waiting.pop()
        if (line, wanted) in seen:
            continue
        seen.add((line, wanted))
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": wanted}):
            continue
        name = canonicalize_name(requirement.name)
        inner = requirements
        if name != "feldspar":
            found.add(name)
            inner = importlib.metadata.requires(name) or []
        waiting += [(other, part) for other in inner for part in ("", *requirement.extras)]
    return found


def link(package: importlib.metadata.Distribution, site: Path) -> None:
    """Let an environment see an installed package."""
    for top in top_level(package):
        target = Path(str(package.locate_file(top)))
        if not (site / top).exists():
            (site / top).symlink_to(target)


def top_level(package: importlib.metadata.Distribution) -> Iterator[str]:
    """Yield the files and folders that a package put beside others."""
    tops = {file.parts[0] for file in package.files or []}
    yield from sorted(tops - {"..", "__pycache__"})


def clean_variables() -> dict[str, str]:
    """Return the environment variables without those that lead to a checkout."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "FELDSPAR_CACHE")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def call(folder: Path, name: str, *arguments: str, code: int = 0) -> str:
    """Run a program of an environment elsewhere and return what it prints."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [folder / "bin" / name, *arguments],
            cwd=elsewhere,
            env=clean_variables() | {"FELDSPAR_CACHE": f"{elsewhere}/cache"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != code:
        sys.exit(f"{name} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
