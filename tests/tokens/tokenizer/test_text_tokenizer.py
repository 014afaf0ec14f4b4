"""Byte-level BPE and the tokenizers read from files."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from feldspar.core.errors import RunError, UserError
from feldspar.recipe.sections.tokens import (
    END_OF_DOCUMENT,
    BpeFiles,
    HuggingFaceTokenizer,
    TrainBpe,
)
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer, pack_ids
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings
from tests.tokens.conftest import some_text, some_texts, write_documents

TEXTS = some_texts(7, 60)


@pytest.fixture(scope="module")
def trained() -> TextTokenizer:
    return train_bpe(TEXTS, 320, (END_OF_DOCUMENT, "<|extra|>"))


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_survives_and_both_ways_agree(trained: TextTokenizer, text: str) -> None:
    (ids,) = trained.encode_documents([text])
    assert trained.decode(ids) == text
    slow = trained._tokenizer.encode(text, add_special_tokens=False).ids
    assert ids.tolist() == slow
    assert trained.end_of_document_id not in ids


def test_the_bytes_of_every_length_are_in_the_alphabet(trained: TextTokenizer) -> None:
    text = "".join(map(chr, range(0x250))) + "\U0001f600\U00010348\u20ac"
    assert trained.decode(trained.encode_documents([text])[0]) == text


@pytest.mark.parametrize(
    "text", [END_OF_DOCUMENT, f"a{END_OF_DOCUMENT}b", "<|extra|>", "é<|extra|>"]
)
def test_special_strings_in_a_text_stay_text(trained: TextTokenizer, text: str) -> None:
    (ids,) = trained.encode_documents([text])
    assert not {0, 1} & set(ids.tolist())
    assert trained.decode(ids) == text


def test_special_tokens_come_first_and_decode_to_their_strings(trained: TextTokenizer) -> None:
    assert trained.end_of_document_id == 0
    assert trained.vocab_size == 320
    assert trained.decode([0, 1]) == END_OF_DOCUMENT + "<|extra|>"


def test_training_does_not_depend_on_order_or_process(trained: TextTokenizer) -> None:
    shuffled = TEXTS.copy()
    random.Random(0).shuffle(shuffled)
    assert train_bpe(shuffled, 320, (END_OF_DOCUMENT, "<|extra|>")).digest == trained.digest
    script = (
        "from tests.tokens.tokenizer.test_text_tokenizer import TEXTS, END_OF_DOCUMENT, train_bpe;"
        "print(train_bpe(TEXTS, 320, (END_OF_DOCUMENT, '<|extra|>')).digest)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == trained.digest


def test_too_little_text_for_the_vocabulary() -> None:
    with pytest.raises(UserError, match="260 tokens only, not for the 5,000"):
        train_bpe(["abcd"], 5000, (END_OF_DOCUMENT,))


def test_saved_and_loaded(trained: TextTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert loaded.digest == trained.digest
    assert loaded.end_of_document == END_OF_DOCUMENT
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            loaded.encode_documents(TEXTS), trained.encode_documents(TEXTS), strict=True
        )
    )


def test_transformers_loads_the_folder(trained: TextTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert loaded.eos_token == END_OF_DOCUMENT
    assert loaded.eos_token_id == trained.end_of_document_id
    assert len(loaded) == trained.vocab_size
    text = "the river runs, 東京.\n"
    assert loaded(text)["input_ids"] == trained.encode_documents([text])[0].tolist()
    assert loaded.decode(loaded(text)["input_ids"]) == text


def test_an_id_that_does_not_fit_is_refused() -> None:
    assert pack_ids([1, 65_535], np.dtype("<u2")) == b"\x01\x00\xff\xff"
    with pytest.raises(RunError, match="does not fit in uint16"):
        pack_ids([65_536], np.dtype("<u2"))
    assert pack_ids([65_536], np.dtype("<u4")) == b"\x00\x00\x01\x00"


@pytest.mark.parametrize(("size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_the_type_follows_the_vocabulary(size: int, dtype: str) -> None:
    words = {f"w{n}": n for n in range(size - 1)} | {"<end>": size - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = TextTokenizer(tokenizer, "<end>")
    (ids,) = wrapped.encode_documents([f"w5 w{size - 2}"])
    assert ids.dtype == dtype
    assert ids.tolist() == [5, size - 2]


class TestHuggingFace:
    def test_folder_and_file(self, trained: TextTokenizer, tmp_path: Path) -> None:
        trained.save(tmp_path)
        for path in (tmp_path, tmp_path / "tokenizer.json"):
            settings = HuggingFaceTokenizer(path=str(path), vocab_size=320)
            assert tokenizer_from_settings(settings, None, 0).digest == trained.digest

    def test_declared_vocabulary_differs(self, trained: TextTokenizer, tmp_path: Path) -> None:
        trained.save(tmp_path)
        with pytest.raises(UserError, match="declares 321 tokens"):
            tokenizer_from_settings(
                HuggingFaceTokenizer(path=str(tmp_path), vocab_size=321), None, 0
            )

    def test_unknown_end_of_document_names_the_nearest(
        self, trained: TextTokenizer, tmp_path: Path
    ) -> None:
        trained.save(tmp_path)
        settings = HuggingFaceTokenizer(path=str(tmp_path), end_of_document="<|endoftxt|>")
        with pytest.raises(UserError, match="did you mean"):
            tokenizer_from_settings(settings, None, 0)

    def test_no_end_of_sequence_token_declared(
        self, trained: TextTokenizer, tmp_path: Path
    ) -> None:
        trained.save(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        with pytest.raises(UserError, match="no end-of-sequence token"):
            tokenizer_from_settings(HuggingFaceTokenizer(path=str(tmp_path)), None, 0)

    def test_eos_written_as_a_mapping(self, trained: TextTokenizer, tmp_path: Path) -> None:
        trained.save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({"eos_token": {"content": "<|extra|>"}})
        )
        found = tokenizer_from_settings(HuggingFaceTokenizer(path=str(tmp_path)), None, 0)
        assert found.end_of_document_id == 1

    @pytest.mark.parametrize("path", ["nobody/nothing", "no such place", "/does/not/exist"])
    def test_a_name_that_is_not_in_the_cache(self, path: str) -> None:
        with pytest.raises(UserError, match="not in the Hugging Face cache"):
            tokenizer_from_settings(HuggingFaceTokenizer(path=path), None, 0)

    def test_not_a_tokenizer(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        settings = HuggingFaceTokenizer(path=str(tmp_path), end_of_document="x")
        with pytest.raises(UserError, match="is not a tokenizer"):
            tokenizer_from_settings(settings, None, 0)

    @given(text=st.text(st.characters(codec="utf-8"), max_size=30))
    @settings(max_examples=30)
    def test_other_kinds_of_tokenizer_take_the_slow_way(self, text: str) -> None:
        tokenizer = Tokenizer(
            models.BPE(vocab={"<end>": 0, "<0x61>": 1, "a": 2, "?": 3}, merges=[], unk_token="?")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.add_tokens([AddedToken("zz")])
        wrapped = TextTokenizer(tokenizer, "<end>")
        (ids,) = wrapped.encode_documents([text])
        assert ids.tolist() == tokenizer.encode(text, add_special_tokens=False).ids


class TestBpeFiles:
    @pytest.fixture
    def files(self, trained: TextTokenizer, tmp_path: Path) -> BpeFiles:
        parts = json.loads(trained._tokenizer.to_str())["model"]
        vocab, merges = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
        vocab.write_text(json.dumps(parts["vocab"]))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in parts["merges"]), ""]
        merges.write_text("\n".join(lines), encoding="utf-8")
        return BpeFiles(vocab=vocab, merges=merges)

    def test_the_same_ids_as_the_tokenizer_they_came_from(
        self, files: BpeFiles, trained: TextTokenizer
    ) -> None:
        read = tokenizer_from_settings(files, None, 0)
        text = some_text(random.Random(3), 200)
        assert read.encode_documents([text])[0].tolist() == (
            trained.encode_documents([text])[0].tolist()
        )
        assert read.end_of_document_id == trained.end_of_document_id

    def test_a_bad_merge_is_named_by_line(self, files: BpeFiles) -> None:
        with files.merges.open("a", encoding="utf-8") as file:
            file.write("only-one\n")
        lines = files.merges.read_text(encoding="utf-8").count("\n")
        with pytest.raises(UserError) as caught:
            tokenizer_from_settings(files, None, 0)
        assert caught.value.where == f"{files.merges}:{lines}"
        assert caught.value.found == "only-one"

    def test_missing_files_and_tokens(self, files: BpeFiles, tmp_path: Path) -> None:
        missing = files.model_copy(update={"merges": tmp_path / "none"})
        with pytest.raises(UserError, match=r"tokenizer\.merges: .*none cannot be read"):
            tokenizer_from_settings(missing, None, 0)
        other = files.model_copy(update={"end_of_document": "</s>"})
        with pytest.raises(UserError, match="has no token '</s>'"):
            tokenizer_from_settings(other, None, 0)


def test_gpt2_encoding_oracle() -> None:
    """The part of the known GPT-2 answer that the bytes alone decide, with its few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", "w"), ("o", "r"), ("Ġw", "or"), ("l", "d"), ("Ġwor", "ld")]
    vocab = {token: n for n, token in enumerate([*alphabet, *map("".join, pairs), END_OF_DOCUMENT])}
    from feldspar.tokens.tokenizer.bpe import byte_level

    tokenizer = TextTokenizer(byte_level(models.BPE(vocab=vocab, merges=pairs)), END_OF_DOCUMENT)
    (ids,) = tokenizer.encode_documents(["old world world"])
    names = {number: token for token, number in vocab.items()}
    assert [names[int(n)] for n in ids] == ["o", "ld", "Ġworld", "Ġworld"]


def test_a_sample_is_drawn_evenly_over_sources(tmp_path: Path) -> None:
    from feldspar.tokens.tokenizer.tokenizer_sources import _sample

    folder = write_documents(
        tmp_path / "documents",
        {
            "train": {
                "large": ["x" * 100] * 500,
                "middle": ["y" * 100] * 200,
                "small": ["z" * 100] * 5,
            }
        },
    )
    drawn = _sample(folder, ["large", "middle", "small"], 20_000, seed=1)
    counts = {name: int(keep.sum()) for name, keep in drawn.items()}
    assert counts["small"] == 5
    assert counts["large"] == pytest.approx(98, abs=1)
    assert counts["middle"] == pytest.approx(98, abs=1)
    first_hundred = int(drawn["large"][:100].sum())
    assert 5 < first_hundred < 40
    settings = TrainBpe(vocab_size=270, sample_bytes=20_000)
    again = [tokenizer_from_settings(settings, folder, 1).digest for _ in range(2)]
    assert again[0] == again[1]
