"""Text that would steer a terminal is written out; all other text stays."""

import json

from hypothesis import given
from hypothesis import strategies as st

from feldspar.cli.console import visible


@given(st.text())
def test_nothing_steers_and_nothing_is_lost(text: str) -> None:
    shown = visible(text)
    assert all(
        character in "\n\t" or character.isprintable() for character in shown if character < "\xa0"
    )
    assert visible(shown) == shown
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


def test_what_is_written_out() -> None:
    text = "a\x1b[31m\x9b\x7f\r\u202e\udcff b\tc\n\u00e9\u0645"
    assert visible(text) == ("a\\u001b[31m\\u009b\\u007f\\u000d\\u202e\\udcff b\tc\n\u00e9\u0645")
