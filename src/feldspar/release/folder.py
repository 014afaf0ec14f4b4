"""Finish a release folder with its card and manifest, and verify a release by them."""

from pathlib import Path

from feldspar.core.artifact import Wanted, finish_artifact
from feldspar.core.files import write_atomically
from feldspar.core.manifest import read_manifest, verify_files
from feldspar.release.card import ReleaseFacts, model_card

KIND = "release"
CARD_NAME = "README.md"


def finish_release(folder: Path, facts: ReleaseFacts, command: str) -> None:
    """Write the card and the manifest of an exported folder."""
    write_atomically(folder / CARD_NAME, model_card(facts))
    wanted = Wanted(KIND, facts.manifests.get("recipe", ""), parents=facts.manifests)
    finish_artifact(
        folder,
        wanted,
        command=command,
        counts={
            "parameters": facts.parameters,
            "tokens": facts.tokens,
            "planned_tokens": facts.planned_tokens,
        },
    )


def verify_release(folder: Path) -> list[str]:
    """List every difference between a release and its manifest, including unlisted files.

    Every file is read again; remembered comparisons do not count. Raises UserError when the folder
    is not a release, RunError when its manifest was altered.
    """
    return verify_files(folder, read_manifest(folder, KIND))
