"""A recipe's begin_of_sequence decides for training, and for transformers on the saved folder."""

import json
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, processors

from feldspar.core.errors import UserError
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings
from tests.tokens.tokenizer.test_declaration import whole_base


def made(folder: Path, begins: bool | None) -> TextTokenizer:
    settings = HuggingFaceTokenizer(path=str(folder), begin_of_sequence=begins)
    return tokenizer_from_settings(settings, None, 0)


@pytest.mark.parametrize("kind", ["llama", "llama3"])
@pytest.mark.parametrize("own", ["begins", "plain", "ends", "in a row"])
@pytest.mark.parametrize("begins", [True, False, None])
def test_the_setting_holds_for_transformers_too(
    kind: str, own: str, begins: bool | None, tmp_path: Path
) -> None:
    folder = whole_base(tmp_path / "base", kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    both = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", special)
    tokenizer.post_processor = {
        "begins": both,
        "plain": processors.ByteLevel(trim_offsets=False),
        "ends": processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", special),
        "in a row": processors.Sequence([processors.ByteLevel(), both]),
    }[own]
    tokenizer.save(str(folder / "tokenizer.json"))
    made(folder, begins).save(tmp_path / "saved")
    found = TextTokenizer.load(tmp_path / "saved")
    expected = begins if begins is not None else own != "plain"
    assert found.adds_begin_of_sequence is expected
    begin, end = (id_ for _, id_ in special)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = [*([begin] if expected else []), *found.encode("It is."), *([end] * (own == "ends"))]
    assert theirs("It is.")["input_ids"] == ids
    assert found.begin_ids == ((begin,) if expected else ())
    assert found.before_id == (begin if expected else found.end_of_document_id)
    assert theirs.bos_token == "<s>"


def test_without_such_a_token(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base", bos_token=None)
    parts = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(parts | {"post_processor": None}))
    with pytest.raises(UserError, match="names no such token"):
        made(folder, True)
    assert made(folder, False).digest == made(folder, None).digest


def test_a_processor_that_cannot_be_changed(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match="cannot be changed") as caught:
        made(folder, False)
    assert caught.value.found == "BertProcessing"


def test_recipes_without_the_setting_keep_their_digests() -> None:
    plain = HuggingFaceTokenizer(path="x")
    assert "begin_of_sequence" not in plain.model_dump()
    changed = plain.model_copy(update={"begin_of_sequence": False})
    assert changed.model_dump()["begin_of_sequence"] is False
