"""From a recipe's mixture to probabilities and epochs."""

from dataclasses import replace
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phases import MixtureEntry
from feldspar.tokens.sequences.resolve import (
    MixtureContext,
    UnknownTokens,
    resolve_mixture,
)

CONTEXT = MixtureContext(
    tokens={"web": 6000, "code": 3000, "books": 1000},
    length_tokens=2000,
    context_length=100,
    where="phases.0.mixture",
)


def test_natural_is_by_tokens() -> None:
    resolved = resolve_mixture("natural", CONTEXT)
    assert resolved.probabilities == {
        "web": Fraction(6, 10),
        "code": Fraction(3, 10),
        "books": Fraction(1, 10),
    }
    assert resolved.epochs == pytest.approx({"web": 0.2, "code": 0.2, "books": 0.2})


def test_probabilities_in_the_order_given_and_absent_sources_left_out() -> None:
    resolved = resolve_mixture({"code": 0.7, "web": 0.3, "books": 0.0}, CONTEXT)
    assert list(resolved.probabilities.items()) == [
        ("code", Fraction(7, 10)),
        ("web", Fraction(3, 10)),
    ]
    assert resolved.epochs["code"] == pytest.approx(1400 / 3000)


def test_epochs_give_the_probability() -> None:
    mixture = {"code": MixtureEntry(epochs=0.5), "web": MixtureEntry(probability=0.25)}
    resolved = resolve_mixture(mixture, CONTEXT)
    assert resolved.probabilities == {"code": Fraction(3, 4), "web": Fraction(1, 4)}


def test_epochs_and_probability_must_agree() -> None:
    mixture = {"code": MixtureEntry(probability=0.752, epochs=0.5), "web": 0.248}
    assert resolve_mixture(mixture, CONTEXT).probabilities["code"] == Fraction(752, 1000)
    mixture = {"code": MixtureEntry(probability=0.8, epochs=0.5), "web": 0.2}
    with pytest.raises(
        UserError, match=r"0\.5 epochs of 3,000 tokens .* probability of 0\.75, not 0\.8"
    ):
        resolve_mixture(mixture, CONTEXT)


def test_the_sum_is_told() -> None:
    with pytest.raises(UserError, match=r"phases\.0\.mixture: .* sum to 0\.9, not to 1"):
        resolve_mixture({"web": 0.6, "code": 0.3}, CONTEXT)
    resolved = resolve_mixture({"web": 0.6, "code": 0.3}, replace(CONTEXT, normalize=True))
    assert resolved.probabilities == {"web": Fraction(2, 3), "code": Fraction(1, 3)}
    within = resolve_mixture({"web": 0.6666667, "code": 0.3333334}, CONTEXT)
    assert sum(within.probabilities.values()) == 1


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"wep": 1.0}, "unknown source 'wep'; did you mean 'web'"),
        ({"web": -0.5, "code": 1.5}, "web: probability is -0.5"),
        ({"web": nan, "code": 1.0}, "web: probability is nan"),
        ({"web": inf}, "web: probability is inf"),
        ({"web": 0.0, "code": 0.0}, "every probability is 0"),
        ("equal", "'equal' is not a mixture"),
    ],
)
def test_mistakes(mixture: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_mixture(mixture, CONTEXT)


@pytest.mark.parametrize("tokens", [0, 100])
def test_a_source_shorter_than_one_window(tokens: int) -> None:
    context = replace(CONTEXT, tokens={"web": 6000, "tiny": tokens})
    with pytest.raises(
        UserError, match=rf"'tiny' has {tokens} tokens, fewer than one window of 100"
    ):
        resolve_mixture({"web": 0.9, "tiny": 0.1}, context)
    assert "tiny" not in resolve_mixture({"web": 1.0, "tiny": 0.0}, context).probabilities
    exactly = replace(CONTEXT, tokens={"web": 101}, length_tokens=100)
    assert resolve_mixture("natural", exactly).epochs["web"] == pytest.approx(100 / 101)


def test_reading_more_than_once_must_be_said() -> None:
    mixture = {"books": 1.0}
    with pytest.raises(UserError, match=r"'books' \(1,000 tokens\) would be read 2 times"):
        resolve_mixture(mixture, CONTEXT)
    for said in (
        replace(CONTEXT, allow_repeat=True),
        replace(CONTEXT, allow_repeat=["books"]),
        replace(CONTEXT, length_in_epochs=True),
    ):
        assert resolve_mixture(mixture, said).epochs == {"books": 2.0}
    declared = {"books": MixtureEntry(epochs=2.0)}
    assert resolve_mixture(declared, CONTEXT).probabilities == {"books": Fraction(1)}
    with pytest.raises(UserError, match="read 2 times"):
        resolve_mixture(mixture, replace(CONTEXT, allow_repeat=["code"]))
    with pytest.raises(UserError, match="allow_repeat: unknown source 'book'"):
        resolve_mixture(mixture, replace(CONTEXT, allow_repeat=["book"]))


def test_earlier_phases_count_as_reading() -> None:
    once = replace(CONTEXT, length_tokens=3000)
    assert resolve_mixture({"code": 1.0}, once).epochs == {"code": 1.0}
    with pytest.raises(UserError, match=r"read 1\.5 times by the end of this phase"):
        resolve_mixture({"code": 1.0}, replace(once, epochs_before={"code": 0.5}))


def test_without_tokens_only_what_needs_them_is_unknown() -> None:
    context = replace(CONTEXT, tokens={"web": None, "code": 3000})
    resolved = resolve_mixture({"web": 0.5, "code": 0.5}, context)
    assert resolved.epochs == {"web": None, "code": pytest.approx(1 / 3)}
    with pytest.raises(UnknownTokens, match="tokens of source 'web'"):
        resolve_mixture("natural", context)
    with pytest.raises(UnknownTokens):
        resolve_mixture({"web": MixtureEntry(epochs=1.0)}, context)
    alone = replace(CONTEXT, tokens={"web": None})
    assert resolve_mixture("natural", alone).probabilities == {"web": 1}
