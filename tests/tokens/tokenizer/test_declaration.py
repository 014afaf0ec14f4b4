"""A copied, extended or exported tokenizer declares all that its base declares."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, processors

from feldspar.core.errors import UserError
from feldspar.recipe.sections.tokens import ExtendWith, HuggingFaceTokenizer
from feldspar.tokens.tokenizer.extend import extend_tokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer, copy_tokenizer
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings
from tests.tokens.bases import base, cipher, english

TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
OLD = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "</s>",
    "clean_up_tokenization_spaces": False,
}
TEXTS = ("The river runs. <s> is text, <think> is not.\n", " 12.5  x", "", "de fghij")


def whole_base(folder: Path, kind: str = "llama", **configuration: Any) -> Path:
    """Write a base as its authors publish it: with a beginning, added tokens and a template."""
    tokenizer = Tokenizer.from_str(base(kind).to_json())
    tokenizer.encode_special_tokens = False
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("Zz", lstrip=True)])
    tokenizer.add_special_tokens(["<|turn|>", "<pad>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A",
        pair="<s> $A <s> $B",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<s>", "special": True, "__type": "AddedToken"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "chat_template": TEMPLATE,
        "model_max_length": 77,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(declared | configuration))
    ends = [tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<|turn|>")]
    generation = {"bos_token_id": 1, "eos_token_id": ends, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def assert_same_for_transformers(folder: Path, other: Path) -> None:
    """Compare what users of transformers see."""
    old, new = (
        transformers.AutoTokenizer.from_pretrained(str(each), local_files_only=True)
        for each in (folder, other)
    )
    for text in TEXTS:
        assert new(text)["input_ids"] == old(text)["input_ids"]
        plain = [t(text, add_special_tokens=False)["input_ids"] for t in (old, new)]
        assert plain[0] == plain[1]
    assert new.special_tokens_map == old.special_tokens_map
    assert new.chat_template == old.chat_template
    assert new.added_tokens_decoder == old.added_tokens_decoder
    assert new.model_max_length == old.model_max_length
    messages = [{"role": "user", "content": "Hello."}]
    assert new.apply_chat_template(messages) == old.apply_chat_template(messages)


@pytest.mark.parametrize("kind", ["llama", "metaspace", "llama3"])
def test_a_saved_tokenizer_is_the_bases_for_transformers(kind: str, tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base", kind)
    found = TextTokenizer.load(folder)
    found.save(tmp_path / "saved")
    assert_same_for_transformers(folder, tmp_path / "saved")
    again = TextTokenizer.load(tmp_path / "saved")
    assert again.digest == found.digest
    assert again.generation == found.generation
    assert again.generation["temperature"] == 0.6
    assert [again.piece(end) for end in again.end_ids] == ["</s>", "<|turn|>"]
    assert again.chat_template == TEMPLATE
    assert again.special_tokens["bos_token"] == "<s>"
    assert again.piece(again.begin_of_sequence_id or 0) == "<s>"
    assert again.adds_begin_of_sequence


def test_a_template_in_a_file_comes_first(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}\r\n")
    TextTokenizer.load(folder).save(tmp_path / "saved")
    assert TextTokenizer.load(tmp_path / "saved").chat_template == "{{ messages }}\r\n"
    assert_same_for_transformers(folder, tmp_path / "saved")


def test_several_templates_stay(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    TextTokenizer.load(folder).save(tmp_path / "saved")
    assert TextTokenizer.load(tmp_path / "saved").chat_template == "{{ messages }}"
    assert_same_for_transformers(folder, tmp_path / "saved")


@pytest.mark.parametrize("processed", [True, False])
@pytest.mark.parametrize("configuration", [{}, {"add_bos_token": False}, {"bos_token": None}])
def test_a_text_begins_as_with_transformers(
    configuration: dict[str, Any], processed: bool, tmp_path: Path
) -> None:
    folder = whole_base(tmp_path / "base", **configuration)
    if not processed:
        parts = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(parts | {"post_processor": None}))
    TextTokenizer.load(folder).save(tmp_path / "saved")
    for place in (folder, tmp_path / "saved"):
        theirs = transformers.AutoTokenizer.from_pretrained(str(place), local_files_only=True)
        found = TextTokenizer.load(place)
        assert found.adds_begin_of_sequence is processed
        expected = [found.begin_of_sequence_id] if processed else []
        assert theirs("The river")["input_ids"] == [*expected, *found.encode("The river")]


@pytest.mark.parametrize("kind", ["llama", "llama3", "unigram"])
def test_an_extended_tokenizer_declares_what_its_base_does(kind: str, tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base", kind)
    old, settings = TextTokenizer.load(folder), ExtendWith(corpus="new", new_tokens=50)
    probes = {"old": english()[:5]}, {"new": cipher()[:5]}
    new = extend_tokenizer(old, settings, cipher()[:100], *probes).with_special_tokens(["<|new|>"])
    new.save(tmp_path / "extended")
    assert new.vocab_size == old.vocab_size + 51
    before, after = (
        transformers.AutoTokenizer.from_pretrained(str(each), local_files_only=True)
        for each in (folder, tmp_path / "extended")
    )
    for text in (*TEXTS, *english()[:5]):
        assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.special_tokens_map == before.special_tokens_map
    assert after.chat_template == before.chat_template
    added = before.added_tokens_decoder
    assert {name: after.added_tokens_decoder[name] for name in added} == added
    assert after.convert_tokens_to_ids("<|new|>") == new.id_of("<|new|>") == new.vocab_size - 1
    found = TextTokenizer.load(tmp_path / "extended")
    assert (found.generation, found.begin_ids) == (old.generation, old.begin_ids)


def test_folders_of_earlier_versions_begin_without_a_token(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "tokenizer_config.json").write_text(json.dumps(OLD))
    assert not TextTokenizer.load(folder).adds_begin_of_sequence


def test_without_any_declaration_the_post_processor_decides(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "tokenizer_config.json").unlink()
    TextTokenizer.load(folder, "</s>").save(tmp_path / "saved")
    found = TextTokenizer.load(tmp_path / "saved")
    assert found.adds_begin_of_sequence
    assert found.piece(found.begin_of_sequence_id or 0) == "<s>"


def test_another_end_of_document_is_kept_beside_the_bases_own(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    settings = HuggingFaceTokenizer(path=str(folder), end_of_document="<|turn|>")
    tokenizer_from_settings(settings, None, 0).save(tmp_path / "saved")
    found = TextTokenizer.load(tmp_path / "saved")
    assert found.end_of_document == "<|turn|>"
    assert found.special_tokens["eos_token"] == "</s>"
    assert_same_for_transformers(folder, tmp_path / "saved")


def test_a_copy_holds_the_ids_of_the_models_configuration(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [2, 5], "vocab_size": 9}))
    (tmp_path / "copy").mkdir()
    copy_tokenizer(folder, tmp_path / "copy")
    found = TextTokenizer.load(tmp_path / "copy")
    assert found.declaration.generation == {"eos_token_id": [2, 5]}
    assert found.end_ids == (2, 5)


def test_code_of_the_folder_is_not_referred_to(tmp_path: Path) -> None:
    folder = whole_base(
        tmp_path / "base", auto_map={"AutoTokenizer": ["a.B", None]}, tokenizer_class="B"
    )
    TextTokenizer.load(folder).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in saved


def test_a_tokenizer_trained_here_has_one_special_token() -> None:
    found = base("gpt2")
    assert found.special_tokens == {"eos_token": "</s>"}
    assert found.generation == dict.fromkeys(
        ("bos_token_id", "eos_token_id", "pad_token_id"), found.end_of_document_id
    )
    assert found.begin_of_sequence_id is None
    assert not found.adds_begin_of_sequence
    assert found.chat_template is None


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = whole_base(tmp_path / "base")
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja cannot be read"):
        TextTokenizer.load(folder)
