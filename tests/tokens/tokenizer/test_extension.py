"""What an extended tokenizer is to its base."""

from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.contract import decompositions
from feldspar.tokens.tokenizer.extension import EXTENSION_FILE, Extension
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def base() -> TextTokenizer:
    return train_bpe(["abc abd aab"] * 3, 259, (END_OF_DOCUMENT,))


def test_a_control_token_is_decomposed_as_text(base: TextTokenizer) -> None:
    extended = base.with_special_tokens(["ab c"])
    (ids,) = decompositions(base, extended)
    assert base.decode(ids) == "ab c"


def test_a_tokenizer_of_other_ids_extends_nothing(base: TextTokenizer) -> None:
    other = train_bpe(["xyz xyz zzz"] * 3, 259, (END_OF_DOCUMENT,))
    with pytest.raises(UserError, match="does not extend the base: id 257 was 'ab'"):
        decompositions(base, other)


def test_the_record_travels_with_the_folder(base: TextTokenizer, tmp_path: Path) -> None:
    base.save(tmp_path)
    assert TextTokenizer.load(tmp_path).extension is None
    record = Extension(base.digest, base.vocab_size, 0, "continued", "arabic")
    record.save(tmp_path)
    assert TextTokenizer.load(tmp_path).extension == record
    for text, message in (
        ("[]", "no JSON mapping"),
        ('{"a": 1}', "not the record of an extension"),
    ):
        (tmp_path / EXTENSION_FILE).write_text(text)
        with pytest.raises(UserError, match=message):
            TextTokenizer.load(tmp_path)
