"""The recipe of documents and, if it has these sections, of tokens. It needs no model."""

from feldspar.recipe.sections.corpus import CorpusSettings
from feldspar.recipe.sections.tokens import ShardSettings, Tokenizer
from feldspar.recipe.top import RecipeTop


class DataRecipe(RecipeTop):
    """Sections for documents and shards; a recipe for training has them too."""

    position_unit = "tokens"

    corpus: CorpusSettings
    """Sources, cleaning, deduplication and split of documents."""
    tokenizer: Tokenizer | None = None
    """Tokenizer that turns text into tokens; `tokens build` needs it."""
    shards: ShardSettings | None = None
    """Shards that `tokens build` writes."""

    @property
    def infilling_scopes(self) -> frozenset[str]:
        """Empty: a recipe without phases uses no fill-in-the-middle."""
        return frozenset()
