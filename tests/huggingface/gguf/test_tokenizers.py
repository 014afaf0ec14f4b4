"""Tokenizers in GGUF: the same tokens in llama.cpp, and again after the way back."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from tokenizers import AddedToken, Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from feldspar.core.errors import UserError
from feldspar.huggingface.gguf.export_gguf import export_gguf
from feldspar.huggingface.gguf.gguf_file import open_gguf
from feldspar.huggingface.gguf.opened_gguf import OpenedGguf
from feldspar.huggingface.gguf.pretokenizers import PRETOKENIZERS
from feldspar.huggingface.gguf.tokenizer_in import SPACE, write_tokenizer_of
from tests.huggingface.gguf.conftest import LLAMA, described, weights
from tests.huggingface.gguf.llama_cpp import LlamaCpp

END, BEGIN, UNKNOWN = "<|end|>", "<s>", "<unk>"
TEXTS = [
    "Hello world, it's 12345 o'clock! We'll go  home.\n\n  Indented 3.14\t tabs",
    "    def f(x):\n        return x**2 # comment\n\n\n",
    "ABC'S DON'T I'VE x= y_z+1234567;{}[]\\n  \r\n\r\nend ",
    "a  b   c    d\n e\n\n\nf \n",
    "na\u00efve caf\u00e9 r\u00e9sum\u00e9 \u2014 \u00abquotes\u00bb \u2026 \u00a3\u00a3 $99",
    "\u041f\u0440\u0438\u0432\u0456\u0442, \u0441\u0432\u0456\u0442\u0435! \u0426\u0435 2024.",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u4e2d\u6587\uff0c\u6d4b\u8bd5\uff01",
    "\u0661\u0662\u0663\u0664 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u060c\u0646\u0635\u06d4",
    "emoji \U0001f600\U0001f603 \U0001f468\u200d\U0001f469\u200d\U0001f467",
]
PIECES = [text[begin:] for text in TEXTS for begin in (0, 1, 3, 7)]
N_ROWS = 600


def saved(tokenizer: Tokenizer, folder: Path, **special: str) -> Path:
    """Write a tokenizer's folder."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": END} | special
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"chat_template": "{{ 1 }}"}))
    return folder


def changed(tokenizer: Tokenizer, **parts: Any) -> Tokenizer:
    """Return a tokenizer with other parts of its JSON; those of the model are merged."""
    found = json.loads(tokenizer.to_str())
    found["model"] |= parts.pop("model", {})
    return Tokenizer.from_str(json.dumps(found | parts))


def byte_level(name: str) -> Tokenizer:
    """Train a BPE that splits texts as llama.cpp's rule of this name says."""
    rule = PRETOKENIZERS[name]
    decoder = json.loads(ByteLevel(add_prefix_space=True).__getstate__())
    tokenizer = changed(
        Tokenizer(models.BPE()),
        pre_tokenizer=rule.pre_tokenizer,
        normalizer=rule.normalizer,
        decoder=decoder,
    )
    trainer = trainers.BpeTrainer(
        vocab_size=560,
        special_tokens=[END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    tokenizer = changed(tokenizer, model={"ignore_merges": rule.ignore_merges})
    tokenizer.add_special_tokens([AddedToken("<|turn|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Build a BPE with bytes for unknown characters, and BOS before each text, as Llama 2 has."""
    words = [f"{SPACE}{word}" for text in TEXTS for word in text.split()]
    ids = {token: place for place, token in enumerate((UNKNOWN, BEGIN, END))}
    for token in (*(f"<0x{value:02X}>" for value in range(256)), *sorted({*"".join(words[:30])})):
        ids.setdefault(token, len(ids))
    for word in words[:30]:
        for end in range(2, min(len(word), 6) + 1):
            ids.setdefault(word[:end], len(ids))
    merges = [
        (token[:place], token[place:])
        for token in ids
        if token[0] != "<"
        for place in range(1, len(token))
        if token[:place] in ids and token[place:] in ids
    ]
    tokenizer = changed(
        Tokenizer(models.BPE()),
        model={
            "vocab": ids,
            "merges": merges,
            "byte_fallback": True,
            "unk_token": UNKNOWN,
            "fuse_unk": True,
        },
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [1], "tokens": [BEGIN]}},
        },
    )
    tokenizer.add_special_tokens(
        [AddedToken(each, special=True, normalized=False) for each in (UNKNOWN, BEGIN, END)]
    )
    return tokenizer


def require_same_tokens(tokenizer: Tokenizer, folder: Path, decoder: Any, path: Path) -> None:
    """Check that llama.cpp and the file's tokenizer encode all texts as ``tokenizer`` does."""
    export_gguf(weights(decoder), described(decoder), folder, path, n_real_vocab=N_ROWS)
    opened = OpenedGguf.open(path)
    assert opened.tokenizer_folder is not None
    back = Tokenizer.from_file(str(opened.tokenizer_folder / "tokenizer.json"))
    declared = json.loads((opened.tokenizer_folder / "tokenizer_config.json").read_text())
    assert declared["eos_token"] == END and declared["chat_template"] == "{{ 1 }}"
    llama_cpp = LlamaCpp(path)
    for text in PIECES:
        ids = tokenizer.encode(text).ids
        assert back.encode(text).ids == ids, text
        assert back.decode(ids) == tokenizer.decode(ids)
        by_text, by_ids = llama_cpp.greedy(text, 2), llama_cpp.greedy(ids, 2)
        # The logits of a random model differ for any other tokens.
        assert by_text == by_ids, text
        assert by_text.prompt_tokens == len(ids)


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_byte_level_tokenizers_split_as_llama_cpp_does(name, wide_decoder, tmp_path):
    tokenizer = byte_level(name)
    decoder = wide_decoder(LLAMA, vocab_size=N_ROWS)
    path = tmp_path / "m.gguf"
    require_same_tokens(tokenizer, saved(tokenizer, tmp_path / "t"), decoder, path)
    opened = OpenedGguf.open(path)
    rule = PRETOKENIZERS[opened.file.metadata["tokenizer.ggml.pre"]]
    assert rule.pre_tokenizer == PRETOKENIZERS[name].pre_tokenizer
    text = "<tool> and <|turn|>"
    back = Tokenizer.from_file(str(opened.tokenizer_folder / "tokenizer.json"))
    assert back.encode(text).ids == tokenizer.encode(text).ids


def test_sentencepiece_joins_pairs_as_llama_cpp_does(wide_decoder, tmp_path):
    tokenizer = sentencepiece()
    folder = saved(tokenizer, tmp_path / "t", bos_token=BEGIN, unk_token=UNKNOWN)
    decoder = wide_decoder(LLAMA, vocab_size=N_ROWS)
    require_same_tokens(tokenizer, folder, decoder, tmp_path / "m.gguf")
    metadata = OpenedGguf.open(tmp_path / "m.gguf").file.metadata
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_bos_token"] is True


def test_sentencepiece_that_joins_fewer_pairs_is_refused(wide_decoder, tmp_path):
    tokenizer = sentencepiece()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    fewer = changed(tokenizer, model={"merges": merges[1:]})
    folder = saved(fewer, tmp_path / "t", bos_token=BEGIN, unk_token=UNKNOWN)
    decoder = wide_decoder(LLAMA, vocab_size=N_ROWS)
    with pytest.raises(UserError, match=r"makes a token in fewer ways than llama\.cpp"):
        export_gguf(
            weights(decoder), described(decoder), folder, tmp_path / "m", n_real_vocab=N_ROWS
        )


def test_unigram_is_read_as_it_was_made(tmp_path):
    metaspace = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always",
        "split": False,
    }
    tokenizer = changed(Tokenizer(models.Unigram()), pre_tokenizer=metaspace, decoder=metaspace)
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=[UNKNOWN, END], unk_token=UNKNOWN, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    writer = GGUFWriter(tmp_path / "t.gguf", "llama")
    writer.add_string("tokenizer.ggml.model", "t5")
    writer.add_array("tokenizer.ggml.tokens", [token for token, _ in pieces])
    writer.add_array("tokenizer.ggml.scores", [float(score) for _, score in pieces])
    writer.add_array("tokenizer.ggml.token_type", [2, 3] + [1] * (len(pieces) - 2))
    writer.add_uint32("tokenizer.ggml.eos_token_id", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_tokenizer_of(open_gguf(tmp_path / "t.gguf"), tmp_path)
    back = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in PIECES:
        assert back.encode(text).ids == tokenizer.encode(text).ids, text
        assert back.decode(back.encode(text).ids) == tokenizer.decode(tokenizer.encode(text).ids)
