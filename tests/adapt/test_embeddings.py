"""A whole state extended: what stays, what the new rows cost, what is reported."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from feldspar.adapt.donor import Donor
from feldspar.adapt.embeddings import Adaptation, NewTokens, adapt_embeddings
from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.adapt import EmbeddingAdaptation
from feldspar.recipe.sections.model import ModelSettings

OLD, NEW, WIDTH = 12, 5, 8
TOKENS = NewTokens(
    [f"old{i}" for i in range(OLD)],
    [f"new{i}" for i in range(NEW)],
    [[0, 1], [2], [3, 4, 5], [0, 11], [7, 7, 8]],
)
STD = {"token_embedding.weight": 0.02, "output.weight": 0.03}
WITHOUT_DONOR = ("random", "mean", "mean_cov", "normal_matched", "subword_mean")
METHODS = (*WITHOUT_DONOR, "linear_projection", "similar_topk", "focus")
DONOR = {"type": "run", "path": "somewhere"}


def how(method: str, **others: Any) -> EmbeddingAdaptation:
    donor = {} if method in WITHOUT_DONOR else {"donor": DONOR}
    return EmbeddingAdaptation.model_validate({"initialisation": method, **donor, **others})


def decoder(vocab_size: int, tied: bool, seed: int = 0) -> Decoder:
    built = Decoder(
        ModelSettings(
            n_layers=1,
            d_model=WIDTH,
            n_heads=2,
            d_ff=16,
            vocab_size=vocab_size,
            max_sequence_length=16,
            tied_embeddings=tied,
        )
    )
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(0.1, 0.5, generator=chance)
    return built.double()


def donor(without: tuple[str, ...] = ()) -> Donor:
    names = [name for name in (*TOKENS.old[:10], *TOKENS.new) if name not in without]
    chance = torch.Generator().manual_seed(9)
    matrices = {name: torch.randn(len(names), 3, generator=chance) for name in STD}
    return Donor({name: place for place, name in enumerate(names)}, matrices, "a donor")


def adapt(
    state: dict[str, Tensor],
    settings: EmbeddingAdaptation,
    rows: int = OLD + NEW,
    lender: Donor | None = None,
) -> tuple[dict[str, Tensor], Adaptation]:
    lender = lender or (donor() if settings.donor else None)
    matrices, done = adapt_embeddings(state, TOKENS, rows, settings, STD, 1, lender)
    return state | matrices, done


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_old_rows_stay_and_padding_is_zero(method: str, tied: bool) -> None:
    # Two rows of the old padding are dropped.
    state = {name: tensor.float() for name, tensor in decoder(OLD + 2, tied).state_dict().items()}
    adapted, done = adapt(state, how(method), rows=24)
    assert adapted.keys() == state.keys()
    for name in state:
        if name not in STD:
            assert adapted[name] is state[name]
            continue
        assert adapted[name].shape == (24, WIDTH) and adapted[name].dtype == state[name].dtype
        assert torch.equal(adapted[name][:OLD], state[name][:OLD])
        assert adapted[name][OLD : OLD + NEW].abs().min() > 0
        assert not adapted[name][OLD + NEW :].any()
    assert (done.old_rows, done.new_rows, done.padding_rows) == (OLD, NEW, 7)
    assert set(done.norms) == set(STD) & set(state)


def test_both_matrices_from_their_own_rows() -> None:
    state = dict(decoder(OLD, tied=False).state_dict())
    adapted, _ = adapt(state, how("subword_mean"))
    for name in STD:
        expected = torch.stack([state[name][pieces].mean(0) for pieces in TOKENS.decompositions])
        torch.testing.assert_close(adapted[name][OLD:], expected, atol=1e-6, rtol=0)
    # The same weights over old tokens for both: the output's rows by those of the input.
    adapted, _ = adapt(state, how("similar_topk"))
    lent = donor()
    vectors = lent.matrices["token_embedding.weight"]
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = unit[10:] @ unit[:10].T
    for name in STD:
        for row, values in zip(adapted[name][OLD:], cosines, strict=True):
            nearest = values.topk(5)
            weights = torch.softmax(nearest.values / 0.1, 0).double()
            expected = (weights[:, None] * state[name][nearest.indices]).sum(0)
            torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_random_rows_have_the_parametrization_s_spread_and_their_own_streams() -> None:
    state = dict(decoder(OLD, tied=False).state_dict())
    adapted, _ = adapt(state, how("random"))
    first, second = (adapted[name][OLD:] for name in STD)
    assert first.std() == pytest.approx(0.02, rel=0.4)
    assert second.std() == pytest.approx(0.03, rel=0.4)
    assert torch.equal(adapt(state, how("random"))[0]["output.weight"][OLD:], second)


def losses(model: Decoder, tokens: Tensor, real: int) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood at each position, and the logits of the real rows."""
    labels = tokens.roll(-1, 1)
    logits = model.logits(model(tokens))[..., :real]
    found = model.token_losses(tokens, labels, None, real)
    return found, logits


@settings(max_examples=20)
@given(
    method=st.sampled_from(METHODS),
    tied=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_cost_of_new_rows_on_old_text_is_theirs_alone(
    method: str, tied: bool, seed: int
) -> None:
    """NLL_new = NLL_old + sum of ln(1 + S_new / S_old), section 8 oracle 7."""
    before = decoder(OLD, tied, seed)
    state, _ = adapt(dict(before.state_dict()), how(method), rows=20)
    after = decoder(20, tied)
    after.load_state_dict(state)
    tokens = torch.randint(OLD, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        old, _ = losses(before, tokens, OLD)
        new, logits = losses(after, tokens, OLD + NEW)
    shares = logits[..., OLD:].logsumexp(-1) - logits[..., :OLD].logsumexp(-1)
    torch.testing.assert_close(new, old + torch.log1p(shares.exp()), atol=1e-9, rtol=1e-9)
    assert (new >= old).all()
    if method == "mean":
        # By Jensen; rows come by float32.
        assert float((new - old).max()) <= math.log(1 + NEW / OLD) + 1e-5


def test_padding_without_the_mask_takes_its_share() -> None:
    state, _ = adapt(dict(decoder(OLD, tied=False).state_dict()), how("mean"), rows=40)
    model = decoder(40, tied=False)
    model.load_state_dict(state)
    tokens = torch.arange(OLD)[None]
    masked, _ = losses(model, tokens, OLD + NEW)
    unmasked, _ = losses(model, tokens, 40)
    assert (unmasked > masked).all()


def test_a_tied_model_has_one_matrix() -> None:
    state, _ = adapt(dict(decoder(OLD, tied=True).state_dict()), how("subword_mean"))
    model = decoder(OLD + NEW, tied=True)
    model.load_state_dict(state)
    assert model.head_weight is model.token_embedding.weight
    assert "output.weight" not in state


def test_match_norm_scales_to_the_old_mean() -> None:
    state = dict(decoder(OLD, tied=False).state_dict())
    plain, before = adapt(state, how("subword_mean"))
    matched, after = adapt(state, how("subword_mean", match_norm=True))
    for name in STD:
        wanted = state[name].float().norm(dim=1).mean()
        norms = matched[name][OLD:].norm(dim=1)
        torch.testing.assert_close(norms.float(), wanted.expand(NEW))
        ratio = matched[name][OLD:] / plain[name][OLD:]
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=0)
        assert after.norms[name]["new"]["mean"] == pytest.approx(after.norms[name]["old"]["mean"])
        assert before.norms[name]["new"]["mean"] < before.norms[name]["old"]["mean"]


@pytest.mark.parametrize("method", ["linear_projection", "similar_topk", "focus"])
def test_tokens_unknown_to_the_donor_get_the_mean_of_their_pieces(method: str) -> None:
    state = dict(decoder(OLD, tied=False).state_dict())
    adapted, done = adapt(state, how(method), lender=donor(without=("new1", "new4", "old3")))
    expected, _ = adapt(state, how("subword_mean"))
    for name in STD:
        same = [torch.equal(adapted[name][OLD + i], expected[name][OLD + i]) for i in range(NEW)]
        assert same == [False, True, False, False, True]
    assert (done.fallback_tokens, done.shared_tokens, done.donor) == (2, 9, "a donor")
    assert any("9 shared tokens; 2 new tokens have no vector" in line for line in done.lines())


def test_a_vector_without_direction_is_none_for_cosines() -> None:
    lender = donor()
    lender.matrices["token_embedding.weight"][lender.ids["new2"]] = 0
    state = dict(decoder(OLD, tied=False).state_dict())
    assert adapt(state, how("similar_topk"), lender=lender)[1].fallback_tokens == 1
    assert adapt(state, how("linear_projection"), lender=lender)[1].fallback_tokens == 0


def test_a_ridge_is_told_of_with_the_count() -> None:
    lender = donor(without=tuple(TOKENS.old[4:]))
    _, done = adapt(
        dict(decoder(OLD, tied=False).state_dict()), how("linear_projection"), lender=lender
    )
    assert done.ridge == 1e-3
    assert any("warning: 4 shared tokens are few" in line for line in done.lines())


def test_what_cannot_be_adapted() -> None:
    state = dict(decoder(OLD, tied=False).state_dict())
    with pytest.raises(UserError, match="has 10 rows, but the old tokenizer has 12 tokens"):
        adapt(dict(decoder(10, tied=False).state_dict()), how("mean"))
    lender = donor()
    lender.matrices["output.weight"][3, 1] = math.nan
    with pytest.raises(UserError, match="a donor contains numbers that are not finite") as error:
        adapt(state, how("linear_projection"), lender=lender)
    assert error.value.where == "output.weight"
    with pytest.raises(UserError, match="shares no token with the model's old vocabulary"):
        adapt(state, how("focus"), lender=donor(without=tuple(TOKENS.old)))
    state["output.weight"][2, 2] = math.inf
    with pytest.raises(
        UserError, match=r"output\.weight of the model contains numbers that are not"
    ):
        adapt(state, how("mean"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initialisation": "focus"}, "focus needs a donor"),
        ({"initialisation": "mean", "donor": DONOR}, "mean does not use a donor"),
        ({"initialisation": "wechsel"}, "subword_mean"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingAdaptation.model_validate(values)
