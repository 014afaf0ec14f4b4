"""Resolve a phase's ``mixture``: a probability for each source, and the passes that follow.

Needs only the tokens of each source, from shards or, for a dry run, declared in the recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Literal, Protocol, runtime_checkable

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences.mixture import exact

SUM_TOLERANCE = Fraction(1, 10**6)
AGREEMENT = Fraction(1, 100)
"""Relative difference that is allowed between ``probability`` and ``epochs`` of one source."""
NATURAL = "natural"


@runtime_checkable
class Entry(Protocol):
    """Entry of a source in a mixture, in the form of the recipe's settings."""

    @property
    def probability(self) -> float | None:
        """Share of the phase's sequences."""
        ...

    @property
    def epochs(self) -> float | None:
        """Passes over the source."""
        ...


class MeasuredTokens(dict[str, int]):
    """Tokens of each source, of its selected parts and of its transformed documents, and of a pass
    over the pairs or messages of each phase."""

    def __init__(
        self,
        sources: Mapping[str, int],
        parts: Mapping[str, int],
        examples: Mapping[int, int] | None = None,
        begin_tokens: int = 0,
    ) -> None:
        super().__init__(sources)
        self.parts = dict(parts)
        """Tokens by the label of the part or of its fill-in-the-middle."""
        self.examples = dict(examples or {})
        """Tokens by the index of the phase, padding included."""
        self.begin_tokens = begin_tokens
        """Tokens at the beginning of each sequence that come from no source: 1 for a
        begin-of-sequence token, else 0."""


def tokens_of(
    tokens: Mapping[str, int | None],
    name: str,
    select: Select | None = None,
    how: FillInTheMiddle | None = None,
) -> int | None:
    """Return the tokens of a pass over a source or a part of it: measured, or else estimated.

    The estimate is the part's share of the source. It leaves out the tokens that
    fill-in-the-middle adds.
    """
    if isinstance(tokens, MeasuredTokens):
        part = name if select is None else select.label(name)
        if how is not None and how.scope == "document":
            return tokens.parts.get(how.label(part))
        return tokens.get(name) if select is None else tokens.parts.get(part)
    whole = tokens.get(name)
    return whole if select is None or whole is None else int(whole * select.expected_share)


def begin_tokens_of(tokens: Mapping[str, int | None] | None) -> int:
    """Return the tokens of each sequence that come from no source; 0 without shards."""
    return tokens.begin_tokens if isinstance(tokens, MeasuredTokens) else 0


MixtureLike = Literal["natural"] | str | Mapping[str, float | Entry]


class UnknownTokens(UserError):  # noqa: N818
    """Raised when the mixture needs the tokens of a source and they are not known."""


@dataclass(frozen=True)
class ResolvedMixture:
    """Probability and passes of each source, in the order of the mixture; sources without a share
    are left out."""

    probabilities: dict[str, Fraction]
    epochs: dict[str, float | None]
    """Passes in this phase; None while the source's tokens are unknown."""


@dataclass(frozen=True)
class MixtureContext:
    """Numbers and settings that a mixture is resolved with."""

    tokens: Mapping[str, int | None]
    """Tokens of each source of the corpus, or of the part that is read; None: unknown."""
    length_tokens: int
    """Number of tokens that the phase reads from sources."""
    context_length: int
    """Number of tokens of a sequence that come from a source."""
    allow_repeat: bool | Sequence[str] = False
    """Sources that may be read more than once; True: all."""
    normalize: bool = False
    """Divide probabilities by their sum instead of refusing other sums than 1."""
    length_in_epochs: bool = False
    """True if the phase's length was given in epochs, which states that data may repeat."""
    epochs_before: Mapping[str, float] | None = None
    """Passes in earlier phases over each source, or over what the part shares with other parts."""
    where: str = "mixture"
    """Key for error messages, such as ``train.phases[1].mixture``."""


def resolve_mixture(mixture: MixtureLike, context: MixtureContext) -> ResolvedMixture:
    """Return probabilities that sum to exactly 1, and the passes over each source.

    Raises UserError for a mixture that is not allowed. Raises UnknownTokens if ``natural`` or
    ``epochs`` needs the tokens of a source that are not known.
    """
    if not isinstance(context.allow_repeat, bool):
        for name in context.allow_repeat:
            _check_source(name, f"{context.where}: allow_repeat", context)
    if isinstance(mixture, str):
        shares = _natural(mixture, context)
        declared: set[str] = set()
    else:
        shares, declared = _explicit(mixture, context)
    shares = {name: share for name, share in shares.items() if share}
    resolved = ResolvedMixture(
        shares, {name: _epochs(share, name, context) for name, share in shares.items()}
    )
    for name in shares:
        _check_length(name, context)
        _check_repeats(name, resolved, declared, context)
    return resolved


def _natural(mixture: str, context: MixtureContext) -> dict[str, Fraction]:
    if mixture != NATURAL:
        raise UserError(
            f"{context.where}: {mixture!r} is not a mixture", allowed="natural, or {SOURCE: p, ...}"
        )
    if len(context.tokens) == 1:
        return dict.fromkeys(context.tokens, Fraction(1))
    known = {name: _known_tokens(name, context) for name in context.tokens}
    total = sum(known.values())
    if total == 0:
        raise UserError(f"{context.where}: the corpus has no tokens")
    return {name: Fraction(tokens, total) for name, tokens in known.items()}


def _explicit(
    mixture: Mapping[str, float | Entry], context: MixtureContext
) -> tuple[dict[str, Fraction], set[str]]:
    """Return the share of each source, and the sources whose epochs the recipe gives."""
    shares: dict[str, Fraction] = {}
    declared = set()
    for name, entry in mixture.items():
        _check_source(name, context.where, context)
        probability, epochs = (
            (entry.probability, entry.epochs) if isinstance(entry, Entry) else (entry, None)
        )
        where = f"{context.where}.{name}"
        _check_number(probability, f"{where}: probability")
        _check_number(epochs, f"{where}: epochs")
        if epochs is not None:
            declared.add(name)
        shares[name] = _share(probability, epochs, name, where, context)
    return _summing_to_one(shares, context), declared


def _share(
    probability: float | None,
    epochs: float | None,
    name: str,
    where: str,
    context: MixtureContext,
) -> Fraction:
    if probability is None and epochs is None:
        raise UserError(f"{where}: give probability, epochs or both")
    if epochs is None or (probability is not None and context.tokens[name] is None):
        return exact(probability or 0)
    meant = exact(epochs) * _known_tokens(name, context) / context.length_tokens
    if probability is None:
        return meant
    given = exact(probability)
    if abs(given - meant) > AGREEMENT * max(given, meant):
        raise UserError(
            f"{where}: {epochs:g} epochs of {context.tokens[name]:,} tokens in a phase of "
            f"{context.length_tokens:,} mean a probability of {float(meant):.6g}, not "
            f"{probability:g}",
            do="give only one of the two, or values that agree within 1 %",
        )
    return given


def _check_source(name: str, where: str, context: MixtureContext) -> None:
    if name not in context.tokens:
        hint = nearest(name, context.tokens)
        raise UserError(
            f"{where}: unknown source {name!r}" + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=context.tokens,
        )


def _check_number(value: float | None, where: str) -> None:
    if value is not None and (not isfinite(value) or value < 0):
        raise UserError(f"{where} is {value}", allowed="a finite number of at least 0")


def _summing_to_one(shares: dict[str, Fraction], context: MixtureContext) -> dict[str, Fraction]:
    total = sum(shares.values())
    if total == 0:
        raise UserError(
            f"{context.where}: every probability is 0",
            do="give at least one source a probability above 0",
        )
    if abs(total - 1) > SUM_TOLERANCE and not context.normalize:
        raise UserError(
            f"{context.where}: the probabilities sum to {float(total):.9g}, not to 1",
            found=", ".join(f"{name} {float(share):.6g}" for name, share in shares.items()),
            do="correct them, or set normalize_mixture: true",
        )
    return {name: share / total for name, share in shares.items()}


def _known_tokens(name: str, context: MixtureContext) -> int:
    tokens = context.tokens[name]
    if tokens is None:
        raise UnknownTokens(
            f"{context.where} needs the number of tokens of source {name!r}",
            do=f"build the shards, or declare corpus.sources.{name}.tokens",
        )
    return tokens


def _epochs(share: Fraction, name: str, context: MixtureContext) -> float | None:
    tokens = context.tokens[name]
    return float(share * context.length_tokens / tokens) if tokens else None


def _check_length(name: str, context: MixtureContext) -> None:
    tokens = context.tokens[name]
    if tokens is not None and tokens < context.context_length + 1:
        raise UserError(
            f"{context.where}: source {name!r} has {tokens:,} tokens, fewer than one "
            f"window of {context.context_length:,} and its last label",
            do="use a shorter context_length, give more text, or give the source probability 0",
        )


def _check_repeats(
    name: str, resolved: ResolvedMixture, declared: set[str], context: MixtureContext
) -> None:
    epochs, tokens = resolved.epochs[name], context.tokens[name]
    allowed = context.allow_repeat
    free = allowed if isinstance(allowed, bool) else name in allowed
    if epochs is None or tokens is None or free or name in declared or context.length_in_epochs:
        return
    total = epochs + (context.epochs_before or {}).get(name, 0.0)
    # Allow two windows: the rest of an epoch is dropped, and the mixture rounds to whole windows.
    if total > 1 + 2 * context.context_length / tokens:
        raise UserError(
            f"{context.where}: source {name!r} ({tokens:,} tokens) would be read "
            f"{total:.3g} times by the end of this phase",
            do=f"give its epochs, or set allow_repeat: [{name}]",
        )
