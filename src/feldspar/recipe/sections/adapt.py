"""What is done to a model between ``start_from`` and the first phase."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.recipe.sections.start_from import StartFromHuggingFace, StartFromRun


class RandomRows(Settings):
    """Normal with the standard deviation of the parametrization's initial values."""

    type: Literal["random"] = "random"


class MeanRows(Settings):
    """The mean of the old rows, the same for each new token."""

    type: Literal["mean"] = "mean"


class MeanCovarianceRows(Settings):
    """Normal around the mean of the old rows with a share of their covariance."""

    type: Literal["mean_cov"] = "mean_cov"
    covariance_share: PositiveFloat = 1e-9
    """What the covariance is multiplied by."""


class NormalMatchedRows(Settings):
    """Normal with the old rows' mean and variance in each dimension: their norm, no meaning."""

    type: Literal["normal_matched"] = "normal_matched"


class SubwordMeanRows(Settings):
    """The mean of the rows of the old pieces that the token was cut into before."""

    type: Literal["subword_mean"] = "subword_mean"


class LinearProjectionRows(Settings):
    """The donor's rows, mapped by the affine map that fits the tokens shared with it best."""

    type: Literal["linear_projection"] = "linear_projection"
    ridge: Annotated[float, Field(ge=0)] | None = None
    """Penalty on the map, as a share of the donor rows' mean variance; default: 1e-3 where fewer
    than two shared tokens come on each of the donor's dimensions, else 0."""


class SimilarTopKRows(Settings):
    """The k old rows whose tokens the donor has nearest, weighted by the softmax of cosines."""

    type: Literal["similar_topk"] = "similar_topk"
    k: Count = 5
    """How many."""
    temperature: PositiveFloat = 0.1
    """What the cosines are divided by."""


class FocusRows(Settings):
    """Old rows weighted by the sparsemax of the donor's cosines (FOCUS, 2305.14481); a token
    without a vector gets the mean of its pieces."""

    type: Literal["focus"] = "focus"


Initialisation = Annotated[
    RandomRows
    | MeanRows
    | MeanCovarianceRows
    | NormalMatchedRows
    | SubwordMeanRows
    | LinearProjectionRows
    | SimilarTopKRows
    | FocusRows,
    Field(discriminator="type"),
    NameOrMapping,
]

WITH_DONOR = (LinearProjectionRows, SimilarTopKRows, FocusRows)


class EmbeddingAdaptation(Settings):
    """How the rows of new tokens begin, in the embedding and in an untied head."""

    initialisation: Initialisation = SubwordMeanRows()
    """random, mean, mean_cov, normal_matched, subword_mean, linear_projection, similar_topk or
    focus."""
    donor: Annotated[StartFromRun | StartFromHuggingFace, Field(discriminator="type")] | None = None
    """Another model whose vocabulary holds both old and new tokens (linear_projection,
    similar_topk, focus)."""
    match_norm: bool = False
    """Scale each new row to the mean norm of the old ones."""

    @model_validator(mode="after")
    def _donor_where_used(self) -> Self:
        kind = self.initialisation.type
        needed = isinstance(self.initialisation, WITH_DONOR)
        if needed and self.donor is None:
            raise ValueError(f"donor: {kind} takes its vectors from a donor: name a run or folder")
        if not needed and self.donor is not None:
            raise ValueError(f"donor: {kind} needs none")
        return self


class AdaptSettings(Settings):
    """The model's vocabulary becomes that of the shards' extended tokenizer."""

    embeddings: EmbeddingAdaptation = EmbeddingAdaptation()
    """The rows of new tokens."""
    pad_rows_to: Count = 1
    """The vocabulary's rows are a multiple of this: padding is zero and gets no probability."""
