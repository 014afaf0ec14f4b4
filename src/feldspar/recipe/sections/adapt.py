"""Settings of the change of vocabulary between ``start_from`` and the first phase."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from feldspar.core.errors import UserError
from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.recipe.sections.start_from import StartFromHuggingFace, StartFromRun


class RandomRows(Settings):
    """Normal values with the parametrization's standard deviation of initial values."""

    type: Literal["random"] = "random"


class MeanRows(Settings):
    """Mean of the old rows, the same for each new token."""

    type: Literal["mean"] = "mean"


class MeanCovarianceRows(Settings):
    """Normal values around the mean of the old rows, with a share of their covariance."""

    type: Literal["mean_cov"] = "mean_cov"
    covariance_share: PositiveFloat = 1e-9
    """Factor of the covariance."""


class NormalMatchedRows(Settings):
    """Normal values with the mean and variance of the old rows in each dimension. New rows have a
    usual norm but no meaning."""

    type: Literal["normal_matched"] = "normal_matched"


class SubwordMeanRows(Settings):
    """Mean of the rows of the old tokens that spell the new token."""

    type: Literal["subword_mean"] = "subword_mean"


class LinearProjectionRows(Settings):
    """Rows of the donor, mapped by the affine map that fits the shared tokens best."""

    type: Literal["linear_projection"] = "linear_projection"
    ridge: Annotated[float, Field(ge=0)] | None = None
    """Ridge penalty of the map, as a share of the mean variance of the donor's rows. Default: 1e-3
    where there are fewer than two shared tokens for each dimension of the donor, else 0."""


class SimilarTopKRows(Settings):
    """Mean of the k old rows whose tokens are nearest in the donor, weighted by the softmax of
    their cosines."""

    type: Literal["similar_topk"] = "similar_topk"
    k: Count = 5
    """Number of old rows."""
    temperature: PositiveFloat = 0.1
    """Divisor of the cosines."""


class FocusRows(Settings):
    """Mean of old rows, weighted by the sparsemax of their cosines in the donor (FOCUS,
    2305.14481). A token without a vector in the donor gets the mean of its pieces."""

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
    """Initial rows of new tokens, in the embedding and in an untied head."""

    initialisation: Initialisation = SubwordMeanRows()
    """random, mean, mean_cov, normal_matched, subword_mean, linear_projection, similar_topk or
    focus."""
    donor: Annotated[StartFromRun | StartFromHuggingFace, Field(discriminator="type")] | None = None
    """Another model whose vocabulary holds old and new tokens (linear_projection, similar_topk,
    focus)."""
    match_norm: bool = False
    """Scale each new row to the mean norm of the old rows; refused where the head is tied to the
    embedding, whose logits it would ruin."""

    @model_validator(mode="after")
    def _donor_where_used(self) -> Self:
        kind = self.initialisation.type
        needed = isinstance(self.initialisation, WITH_DONOR)
        if needed and self.donor is None:
            raise ValueError(f"donor: {kind} needs a donor; name a run or a folder")
        if not needed and self.donor is not None:
            raise ValueError(f"donor: {kind} does not use a donor; remove it")
        return self


class AdaptSettings(Settings):
    """Extend the model's vocabulary to that of the shards' extended tokenizer."""

    embeddings: EmbeddingAdaptation = EmbeddingAdaptation()
    """Initial rows of new tokens."""
    pad_rows_to: Count = 1
    """Round the number of rows up to a multiple of this. Padding rows are zero and get no
    probability."""


def adapt_settings(initialisation: str, donor: str | None, pad_rows_to: int) -> AdaptSettings:
    """Return the settings that a command's options stand for.

    Raises UserError for an unknown initialisation, and for a donor that is missing or not used.
    """
    lender = None if donor is None else {"type": "huggingface", "path": donor}
    embeddings = {"initialisation": initialisation, "donor": lender}
    try:
        return AdaptSettings.model_validate({"embeddings": embeddings, "pad_rows_to": pad_rows_to})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"adapt: {first['msg'].removeprefix('Value error, ')}") from None
