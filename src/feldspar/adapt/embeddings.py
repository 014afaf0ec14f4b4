"""Add rows for new tokens to a model's embedding and head; old rows are kept bit for bit.

Section 3 of the method (2407.12869): both matrices of an untied model are treated in the same way,
each from its own old rows. A tied model has one matrix.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from feldspar.adapt.donor import Donor, KnownTokens
from feldspar.adapt.new_rows import (
    Combination,
    Decompositions,
    mean_covariance_rows,
    mean_rows,
    normal_matched_rows,
    random_rows,
    subword_mean,
)
from feldspar.adapt.projection import ENOUGH, fit_affine, ridge_for
from feldspar.adapt.similarity import focus, similar_topk
from feldspar.core.errors import UserError
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.adapt import (
    EmbeddingAdaptation,
    FocusRows,
    LinearProjectionRows,
    MeanCovarianceRows,
    MeanRows,
    NormalMatchedRows,
    RandomRows,
    SimilarTopKRows,
    SubwordMeanRows,
)

EMBEDDING = "token_embedding.weight"
MATRICES = (EMBEDDING, "output.weight")


@dataclass(frozen=True)
class NewTokens:
    """Tokens of an extension: old tokens by id, new tokens in the order of their ids."""

    old: Sequence[str]
    new: Sequence[str]
    decompositions: Decompositions
    """Ids of the old tokens that spell each new token."""


@dataclass(frozen=True)
class RowSource:
    """The source of the row of a new token."""

    kind: Literal["drawn", "mean", "pieces", "donor", "similar"]
    """drawn: random numbers. mean: all old rows. pieces: the old tokens that spell it. donor: its
    row in the donor, mapped. similar: old tokens that are near it in the donor."""
    old_ids: tuple[int, ...] = ()
    """The old tokens whose rows were added up."""
    weights: tuple[float, ...] = ()
    """The weight of each of them."""


@dataclass
class Adaptation:
    """Record of an adaptation, for the run."""

    initialisation: str
    old_rows: int
    """Number of tokens of the old tokenizer; their rows are kept bit for bit."""
    new_rows: int
    padding_rows: int
    """Number of zero rows, which get no probability."""
    match_norm: bool
    donor: str | None = None
    shared_tokens: int | None = None
    """Number of old tokens that the donor has too."""
    fallback_tokens: int = 0
    """Number of new tokens without a vector in the donor; they got the mean of their pieces."""
    ridge: float | None = None
    norms: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By matrix and old or new rows: mean, standard deviation, smallest and largest norm."""

    origins: dict[str, str] = field(default_factory=dict)
    """Digests of the model and of the sources of its rows."""
    row_sources: tuple[RowSource, ...] = ()
    """Source of the row of each new token, in the order of their ids."""

    def record(self) -> dict[str, Any]:
        """Return plain values, without the sources of single rows."""
        return asdict(replace(self, row_sources=())) | {"row_sources": self.counts_of_sources()}

    def counts_of_sources(self) -> dict[str, int]:
        """Count the new rows by the kind of their source."""
        return {str(kind): n for kind, n in Counter(s.kind for s in self.row_sources).items()}

    def lines(self) -> list[str]:
        """Return lines for people."""
        what = f"{self.new_rows:,} new tokens are initialised by {self.initialisation}"
        found = [f"{what}; the rows of the {self.old_rows:,} old tokens are kept"]
        found += [
            f"{name}: mean norm {norms['old']['mean']:.4g} of old rows, {norms['new']['mean']:.4g} "
            "of new ones"
            for name, norms in self.norms.items()
            if self.new_rows
        ]
        if self.donor is not None:
            found.append(
                f"donor {self.donor}: {self.shared_tokens:,} shared tokens; "
                f"{self.fallback_tokens:,} new tokens have no vector there and get the "
                "mean of their pieces"
            )
        if self.ridge:
            found.append(
                f"warning: {self.shared_tokens:,} shared tokens are few for the donor's "
                f"dimensions (less than {ENOUGH} each), so the map uses a ridge of "
                f"{self.ridge:g}"
            )
        return found


@torch.no_grad()
def adapt_embeddings(
    state: Mapping[str, Tensor],
    tokens: NewTokens,
    rows: int,
    settings: EmbeddingAdaptation,
    init_std: Mapping[str, float],
    seed: int,
    donor: Donor | None = None,
) -> tuple[dict[str, Tensor], Adaptation]:
    """Return the embedding of ``state`` and, if there is one, its head, with ``rows`` rows.

    Padding rows of the old vocabulary are dropped, and new padding is zero. ``init_std`` is the
    parametrization's value for each matrix (``random``). New rows are computed in float32. Raises
    UserError if the old model has fewer rows than tokens, rows are not finite, or the donor is not
    usable.
    """
    n_old, n_new = len(tokens.old), len(tokens.new)
    done = Adaptation(
        settings.initialisation.type, n_old, n_new, rows - n_old - n_new, settings.match_norm
    )
    adapted = {}
    present = [name for name in MATRICES if name in state]
    old = {name: _old_rows(name, state[name], n_old) for name in present}
    found = _Initialiser(tokens, settings, init_std, seed, donor, done).rows(old)
    for name in present:
        if settings.match_norm:
            found[name] = _with_norm(found[name], old[name])
        done.norms[name] = {"old": _norms(old[name]), "new": _norms(found[name])}
        padding = old[name].new_zeros(done.padding_rows, old[name].shape[1])
        adapted[name] = torch.cat([old[name], found[name].to(old[name].dtype), padding])
    return adapted, done


@dataclass(frozen=True)
class _Initialiser:
    """Initialise new rows of each matrix by the method of the settings."""

    tokens: NewTokens
    settings: EmbeddingAdaptation
    init_std: Mapping[str, float]
    seed: int
    donor: Donor | None
    done: Adaptation

    def rows(self, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of the new tokens for each of the ``old`` matrices."""
        if isinstance(self.settings.initialisation, LinearProjectionRows):
            return self._projected(self.settings.initialisation, old)
        if isinstance(self.settings.initialisation, SimilarTopKRows | FocusRows):
            return self._similar(self.settings.initialisation, old)
        self.done.row_sources = self._sources_without_donor()
        return {name: self._without_donor(name, matrix) for name, matrix in old.items()}

    def _sources_without_donor(self) -> tuple[RowSource, ...]:
        if isinstance(self.settings.initialisation, SubwordMeanRows):
            return self._pieces()
        kind = "mean" if isinstance(self.settings.initialisation, MeanRows) else "drawn"
        return (RowSource(kind),) * len(self.tokens.new)

    def _pieces(self) -> tuple[RowSource, ...]:
        return tuple(
            RowSource("pieces", tuple(ids), (1 / len(ids),) * len(ids))
            for ids in self.tokens.decompositions
        )

    def _instead(self, new: KnownTokens, sources: Iterable[RowSource]) -> tuple[RowSource, ...]:
        """Return pieces as sources, except for the tokens that the donor knows."""
        found = list(self._pieces())
        for place, source in zip(new.places.tolist(), sources, strict=True):
            found[place] = source
        return tuple(found)

    def _without_donor(self, name: str, old: Tensor) -> Tensor:
        count, how = len(self.tokens.new), self.settings.initialisation
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "adapt.rows", name))
        if isinstance(how, RandomRows):
            return random_rows(count, old.shape[1], self.init_std[name], generator)
        if isinstance(how, MeanRows):
            return mean_rows(old, count)
        if isinstance(how, NormalMatchedRows):
            return normal_matched_rows(old, count, generator)
        if isinstance(how, MeanCovarianceRows):
            return mean_covariance_rows(old, count, how.covariance_share, generator)
        return subword_mean(self.tokens.decompositions).rows(old)

    def _projected(self, how: LinearProjectionRows, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        donor, shared, new = self._known_tokens(nonzero=False)
        self.done.row_sources = self._instead(new, [RowSource("donor")] * len(new.ids))
        found = {}
        for name, matrix in old.items():
            lent = donor.matrix(name)
            self.done.ridge = ridge_for(len(shared.ids), lent.shape[1], how.ridge)
            fitted = fit_affine(lent[shared.ids], matrix[shared.places], self.done.ridge)
            found[name] = subword_mean(self.tokens.decompositions).rows(matrix)
            found[name][new.places] = fitted.rows(lent[new.ids])
        return found

    def _similar(
        self, how: SimilarTopKRows | FocusRows, old: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        donor, shared, new = self._known_tokens(nonzero=True)
        vectors = donor.matrix(EMBEDDING)
        between = vectors[new.ids], vectors[shared.ids], shared.places
        weights: Combination = (
            focus(*between)
            if isinstance(how, FocusRows)
            else similar_topk(*between, how.k, how.temperature)
        )
        counts = weights.counts.tolist()
        parts = zip(weights.ids.split(counts), weights.weights.split(counts), strict=True)
        self.done.row_sources = self._instead(
            new, (RowSource("similar", tuple(i.tolist()), tuple(w.tolist())) for i, w in parts)
        )
        found = {}
        for name, matrix in old.items():
            found[name] = subword_mean(self.tokens.decompositions).rows(matrix)
            found[name][new.places] = weights.rows(matrix)
        return found

    def _known_tokens(self, nonzero: bool) -> tuple[Donor, KnownTokens, KnownTokens]:
        """Return the donor, the old tokens that it has, and the new tokens that it has."""
        donor = self.donor
        assert donor is not None, "the settings require one"
        shared = KnownTokens.of(self.tokens.old, donor, nonzero)
        new = KnownTokens.of(self.tokens.new, donor, nonzero)
        self.done.donor, self.done.shared_tokens = donor.origin, len(shared.ids)
        self.done.fallback_tokens = len(self.tokens.new) - len(new.ids)
        if not len(shared.ids):
            raise UserError(
                f"adapt.embeddings.donor: {donor.origin} shares no token with the model's "
                "old vocabulary",
                do="choose a donor whose tokenizer spells tokens in the same way",
            )
        return donor, shared, new


def _old_rows(name: str, matrix: Tensor, count: int) -> Tensor:
    if len(matrix) < count:
        raise UserError(
            f"adapt: {name} has {len(matrix):,} rows, but the old tokenizer has {count:,} tokens",
            do="give the tokenizer that the model was trained with",
        )
    old = matrix[:count]
    if not torch.isfinite(old).all():
        raise UserError(f"adapt: {name} of the model contains numbers that are not finite")
    return old


def _with_norm(new: Tensor, old: Tensor) -> Tensor:
    own = new.norm(dim=1, keepdim=True)
    wanted = old.float().norm(dim=1).mean()
    return torch.where(own > 0, new * (wanted / own.clamp(min=torch.finfo(own.dtype).tiny)), new)


def _norms(rows: Tensor) -> dict[str, float]:
    if not len(rows):
        return {}
    norms = rows.float().norm(dim=1)
    return {
        "mean": float(norms.mean()),
        "std": float(norms.std(correction=0)),
        "least": float(norms.min()),
        "greatest": float(norms.max()),
    }
