"""A release folder gets its card and manifest last, and is verified by them."""

from pathlib import Path

from feldspar import __version__
from feldspar.core.files import write_atomically
from feldspar.core.manifest import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    records_of,
    verify_files,
    write_manifest,
)
from feldspar.release.card import ReleaseFacts, model_card

KIND = "release"
CARD_NAME = "README.md"


def finish_release(folder: Path, facts: ReleaseFacts, command: str) -> None:
    """Write the card and the manifest of an exported folder."""
    write_atomically(folder / CARD_NAME, model_card(facts))
    manifest = Manifest(
        kind=KIND,
        configuration=facts.manifests.get("recipe", ""),
        version=__version__,
        command=command,
        parents=facts.manifests,
        counts={"parameters": facts.parameters, "tokens": facts.tokens},
        files=records_of(folder),
    )
    write_manifest(folder, manifest)


def verify_release(folder: Path) -> list[str]:
    """Every difference between a release and its manifest, unlisted files too; empty when whole.

    Raises UserError when the folder is no release.
    """
    manifest = read_manifest(folder, KIND)
    problems = verify_files(folder, manifest)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unlisted = sorted(present - set(manifest.files) - {MANIFEST_NAME})
    return problems + [f"{name}: not listed in {MANIFEST_NAME}" for name in unlisted]
