"""Compare the settings of a recipe's shards with those of an existing folder."""

import json
from dataclasses import dataclass
from typing import Any

from feldspar.core.artifact import Wanted
from feldspar.core.files import digest_of
from feldspar.core.manifest import Manifest
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
    """Settings that decide the bytes of a folder of shards, apart from the documents."""

    given: TextTokenizer | None
    """The tokenizer if it is read from files; None if it is trained on the documents."""
    settings: dict[str, Any]
    """Plain values, as in the manifest."""
    configuration: str
    """Digest of the settings."""

    @classmethod
    def of(cls, tokenizer: TokenizerSettings, shards: ShardSettings, seed: int) -> "ShardShape":
        """Return the shape for these settings. Raises UserError if a tokenizer's files are missing.

        A tokenizer from files is compared by content, not by path.
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

    def wanted(self, documents: str | None, any_seed_of: Manifest | None = None) -> Wanted:
        """Return the shards of this shape, made from documents of that digest (None: any).

        ``any_seed_of`` is the manifest of shards that another seed may have put in order: training
        draws an order of its own.
        """
        settings = self.settings
        if any_seed_of is not None and "seed" in any_seed_of.settings:
            settings = settings | {"seed": any_seed_of.settings["seed"]}
        parents = None if documents is None else {"documents": documents}
        return Wanted(KIND, self.configuration, settings, parents, key="shards.path")
