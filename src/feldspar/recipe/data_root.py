"""The recipe of documents, and of tokens where it says so: nothing of it needs a model."""

from feldspar.recipe.sections.corpus import CorpusSettings
from feldspar.recipe.sections.tokens import ShardSettings, Tokenizer
from feldspar.recipe.top import RecipeTop


class DataRecipe(RecipeTop):
    """Documents, and how they become shards; a recipe for training has these sections too."""

    position_unit = "tokens"

    corpus: CorpusSettings
    """Documents in, documents out."""
    tokenizer: Tokenizer | None = None
    """The tokenizer that turns text into tokens; needed by `tokens build`."""
    shards: ShardSettings | None = None
    """Where `tokens build` writes."""

    @property
    def infills(self) -> bool:
        """Tell whether a phase infills: there are no phases."""
        return False
