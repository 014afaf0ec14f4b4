"""A release folder gets its card and manifest last, and is verified by them."""

from pathlib import Path

from feldspar import __version__
from feldspar.core.files import write_atomically
from feldspar.core.manifest import (
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
        counts={
            "parameters": facts.parameters,
            "tokens": facts.tokens,
            "planned_tokens": facts.planned_tokens,
        },
        files=records_of(folder),
    )
    write_manifest(folder, manifest)


def verify_release(folder: Path) -> list[str]:
    """List every difference between a release and its manifest, unlisted files too.

    Every file is read again, whatever is remembered of it. Raises UserError when the folder is no
    release, RunError when its manifest was altered.
    """
    return verify_files(folder, read_manifest(folder, KIND))
