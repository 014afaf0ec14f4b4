"""The loss of documents against one forward pass a token."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import RunError, UserError
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.text_loss import DocumentLoss, document_losses, total_loss, windows_of
from feldspar.evaluate.text_model import TextModel, with_separators
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling
from feldspar.tokens.tokenizer.bpe import train_bpe

END = 256
BEFORE = 300
Make = Callable[..., TextModel]


def random_documents(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, length).astype(np.uint16) for length in lengths]


def brute_force(model: TextModel, document: np.ndarray) -> float:
    """One token at a time: the context that the window rule gives it, full logits, log-softmax."""
    length = model.context_length
    stride = max(1, length // 2)
    tokens = [END, *document.tolist(), END]
    total = 0.0
    for place in range(1, len(tokens)):
        begin = 0
        while place - begin > length:
            begin += stride
        context = torch.tensor([tokens[begin:place]])
        with torch.no_grad():
            logits = model.decoder.logits(model.decoder(context))[0, -1].double()
        logits = logits[: model.n_real_vocab]
        total -= float(logits.log_softmax(-1)[tokens[place]])
    return total


def test_bits_per_byte_compare_two_tokenizers(make_model: Make) -> None:
    # 2 nats a token of 4 bytes, 3 nats a token of 6.
    assert DocumentLoss(200.0, 100, 400).bits_per_byte == pytest.approx(0.72135, abs=1e-5)
    assert DocumentLoss(300.0, 100, 600).bits_per_byte == pytest.approx(0.72135, abs=1e-5)
    text = "the river runs under the old stone house " * 5
    by_bytes = make_model(n_real_vocab=257, vocab_size=300)
    pieces = TextModel(by_bytes.decoder, train_bpe([text], 270, ("<|endoftext|>",)), 270)
    with torch.no_grad():
        by_bytes.decoder.head_weight.zero_()
    losses = [text_losses(model, [text])[0] for model in (by_bytes, pieces)]
    for loss, vocab_size in zip(losses, (257, 270), strict=True):
        assert loss.bytes == len(text)
        assert loss.nats == pytest.approx(loss.tokens * log(vocab_size), rel=1e-5)
    assert losses[1].bits_per_byte < losses[0].bits_per_byte, "fewer tokens for the same bytes"


def test_no_text_has_no_bits_per_byte(make_model: Make) -> None:
    with pytest.raises(UserError, match="at least one byte of text"):
        _ = total_loss(text_losses(make_model(), [""])).bits_per_byte


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi", "none"])
@pytest.mark.parametrize("context", [7, 16])
def test_equals_brute_force(make_model: Make, positions: str, context: int) -> None:
    model = make_model(positions=positions, max_sequence_length=context)
    documents = random_documents(0, 1, 5, 15, 16, 17, 40, 75)
    losses = document_losses(model, documents, [1] * len(documents), batch_tokens=64)
    for loss, document in zip(losses, documents, strict=True):
        assert loss.tokens == len(document) + 1
        assert loss.nats == pytest.approx(brute_force(model, document), rel=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_a_length_that_scales_positions_is_each_documents_own(
    make_model: Make, positions: str
) -> None:
    model = make_model(positions=positions)
    model.decoder.scale_positions(LinearScaling(type="linear", train_length=4))
    documents = random_documents(3, 5, 5, 9, 12, 15)
    together = document_losses(model, documents, [1] * 6)
    alone = [document_losses(model, [document], [1])[0] for document in documents]
    assert [loss.nats for loss in together] == pytest.approx([loss.nats for loss in alone])
    model.decoder.scale_positions(NoScaling())
    assert document_losses(model, documents[3:4], [1])[0].nats != pytest.approx(alone[3].nats)


def test_padding_rows_take_no_probability(make_model: Make) -> None:
    model = make_model(vocab_size=320, n_real_vocab=257)
    document = random_documents(30)[0]
    loss = document_losses(model, [document], [30])[0]
    assert loss.nats == pytest.approx(brute_force(model, document), rel=1e-5)
    open_model = TextModel(model.decoder, model.tokenizer)
    assert document_losses(open_model, [document], [30])[0].nats > loss.nats + 1


def test_batching_and_order_change_nothing(make_model: Make) -> None:
    model = make_model(positions="rotary")
    documents = random_documents(*range(0, 90, 7))
    sizes = list(range(1, len(documents) + 1))
    alone = document_losses(model, documents, sizes, batch_tokens=1)
    for budget in (20, 100, 10_000):
        together = document_losses(model, documents, sizes, batch_tokens=budget)
        assert [loss.nats for loss in together] == pytest.approx(
            [loss.nats for loss in alone], rel=2e-6
        )
    backwards = document_losses(model, documents[::-1], sizes[::-1])[::-1]
    assert total_loss(backwards).nats == pytest.approx(total_loss(alone).nats, rel=2e-6)
    assert [loss.bytes for loss in backwards] == sizes


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary(make_model: Make) -> None:
    model = make_model(std=0.0)
    losses = text_losses(model, ["hello", "naïve café", "x" * 100])
    total = total_loss(losses)
    assert total.nats_per_token == pytest.approx(log(257), rel=1e-6)
    assert (total.tokens, total.bytes) == (5 + 12 + 100 + 3, 117)
    assert total.bits_per_byte == pytest.approx(120 * log(257, 2) / 117, rel=1e-6)


def test_training_mode_is_left_as_found_and_dropout_is_off(make_model: Make) -> None:
    model = make_model(dropout=0.5)
    model.decoder.train()
    document = random_documents(20)
    first = document_losses(model, document, [20])
    assert model.decoder.training and document_losses(model, document, [20]) == first


def test_losses_add_up() -> None:
    total = DocumentLoss(1.0, 2, 3) + DocumentLoss(2.0, 4, 5)
    assert total == DocumentLoss(3.0, 6, 8)
    assert total.nats_per_token == 0.5 and total.bits_per_byte == pytest.approx(3 / log(2) / 8)
    assert total_loss([]) == DocumentLoss()


def test_framed_slices_equal_the_whole() -> None:
    document = np.arange(7, dtype=np.uint16)
    whole = np.array([BEFORE, *range(7), END])
    assert (with_separators(document, BEFORE, END) == whole).all()
    for begin in range(9):
        for end in range(begin, 10):
            part = with_separators(document, BEFORE, END, begin, end)
            assert (part == whole[begin:end]).all()


def test_a_tokenizer_larger_than_the_model_is_refused(make_model: Make) -> None:
    with pytest.raises(UserError, match="do not belong together"):
        make_model(vocab_size=200)


def test_special_tokens_that_no_text_holds_need_no_row(make_model: Make) -> None:
    """Gemma 3's tokenizer has one such token more than the text model has rows."""
    model = make_model()
    larger = model.tokenizer.with_special_tokens(["<image>"])
    assert (larger.vocab_size, larger.needed_rows) == (258, 257)
    same = TextModel(model.decoder, larger)
    assert text_losses(same, ["an <image>"])[0].nats == text_losses(model, ["an <image>"])[0].nats


def test_a_broken_model_gives_no_figures(make_model: Make) -> None:
    model = make_model()
    with torch.no_grad():
        model.decoder.token_embedding.weight[5, 3] = float("nan")
    with pytest.raises(RunError, match="is not finite"):
        text_losses(model, ["abc"])


@given(st.integers(1, 200), st.integers(1, 40))
def test_each_prediction_once_with_half_a_context(predictions: int, length: int) -> None:
    windows = list(windows_of(5, predictions, length))
    scored = [n for window in windows for n in range(window.first_scored, window.end)]
    assert scored == list(range(predictions))
    for number, window in enumerate(windows):
        assert window.document == 5 and 1 <= window.length <= length
        assert window.begin == number * max(1, length // 2)
        if number:
            assert window.first_scored - window.begin + 1 >= length / 2


def test_a_document_that_fits_is_one_window() -> None:
    assert len(list(windows_of(0, 16, 16))) == 1 and len(list(windows_of(0, 17, 16))) == 2
