"""Compare the settings that shape a recipe's shards with those of an existing folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of
from feldspar.core.manifest import MANIFEST_NAME, Manifest, changes_since
from feldspar.core.verified import VerifiedFolder, open_folder
from feldspar.recipe.sections.tokens import (
    ExtendTokenizer,
    ShardSettings,
    TokenizerSettings,
    TrainBpe,
)
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.tokenizer_sources import (
    base_of,
    tokenizer_from_settings,
)

KIND = "shards"


@dataclass(frozen=True)
class ShardShape:
    """Everything but the documents that decides the bytes of a folder of shards."""

    given: TextTokenizer | None
    """The tokenizer where it is read from files; None where the documents train it."""
    settings: dict[str, Any]
    """Plain values, as the manifest keeps them."""
    configuration: str
    """Their digest."""

    @classmethod
    def of(cls, tokenizer: TokenizerSettings, shards: ShardSettings, seed: int) -> "ShardShape":
        """Return the shape that settings ask for. Raises UserError when a tokenizer's files are
        missing.

        A tokenizer from files counts by its content, wherever the files lie.
        """
        values = tokenizer.model_dump(mode="json")
        given = None
        if isinstance(tokenizer, ExtendTokenizer):
            values["base"] = base_of(tokenizer).digest
        elif not isinstance(tokenizer, TrainBpe):
            given = tokenizer_from_settings(tokenizer, None, seed)
            values = {"digest": given.digest, "end_of_document": given.end_of_document}
        configuration = digest_of(
            KIND,
            given.digest if given else json.dumps(values),
            given.end_of_document if given else "",
            str(shards.shard_tokens),
            str(seed),
        )
        settings = {"tokenizer": values, "shard_tokens": shards.shard_tokens, "seed": seed}
        return cls(given, settings, configuration)

    def require_same(
        self, path: Path, manifest: Manifest, documents: str | None, any_seed: bool = False
    ) -> None:
        """Raise UserError when the shards in ``path`` were built otherwise, and say what differs.

        ``documents`` is the digest of the documents; None: they are not at hand. ``any_seed``
        admits shards that another seed has ordered: training draws an order of its own.
        """
        settings = self.settings
        if any_seed and "seed" in manifest.settings:
            settings = settings | {"seed": manifest.settings["seed"]}
        same = manifest.configuration == self.configuration or settings == manifest.settings
        do = "choose another shards.path, or pass --overwrite to replace it"
        if not same:
            raise UserError(
                f"shards.path: {path} was built with other settings",
                found=changes_since(manifest, settings),
                do=do,
            )
        if documents is not None and manifest.parents != {"documents": documents}:
            raise UserError(f"shards.path: {path} was built from other documents", do=do)


def finished_shards(path: Path) -> VerifiedFolder | None:
    """Open a finished folder of shards; None where there is no folder.

    Raises UserError when the folder holds something else, RunError when a file is missing.
    """
    if not path.exists():
        return None
    if not (path / MANIFEST_NAME).is_file():
        raise UserError(
            f"shards.path: {path} holds something else than shards", do="choose another shards.path"
        )
    return open_folder(path, KIND)
