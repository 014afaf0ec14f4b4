"""Every prediction is scored once, from as much context as promised."""

from hypothesis import given
from hypothesis import strategies as st

from feldspar.evaluate.loss.windows import windows_of


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
