"""Small base tokenizers of the kinds that are in use, trained on a made English, and a target text.

The target language is a cipher of the same text: letters become Arabic ones, so that it has the
statistics of a language, marks of its own, and shares no letter with English.
"""

import json
import re
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.made_text import paragraphs

ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنه"
MISSING = "ثخذ"
"""Letters that SentencePiece bases lack and spell with bytes."""
CIPHER = str.maketrans("abcdefghijklmnopqrstuvwxyz", ARABIC)
KINDS = ("llama", "metaspace", "split words", "gpt2", "llama3", "smollm", "qwen", "gemma")
"""Kinds of BPE."""
UNIGRAMS = ("unigram", "t5")
"""Kinds of Unigram: as in XLM-R, and as in T5, with bytes for missing characters and added tokens
beyond the model's own."""
ALL_KINDS = (*KINDS, *UNIGRAMS)
SPECIAL = ("<unk>", "<s>", "</s>")
_LLAMA3 = r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def english() -> list[str]:
    """Paragraphs of a made language in English letters."""
    return list(paragraphs(900))


@cache
def cipher() -> list[str]:
    """Other paragraphs, in the cipher language, with the punctuation of Arabic."""
    texts = [text.lower().translate(CIPHER) for text in english()[300:]]
    return [text.replace("?", "؟").replace(",", "،") for text in texts]


@cache
def base(kind: str, vocab_size: int = 700) -> TextTokenizer:
    """A base of one of ``KINDS``."""
    texts = [*english()[:300], *(text for text in cipher()[:40] if not set(MISSING) & set(text))]
    texts += list(ARABIC.translate(dict.fromkeys(map(ord, MISSING))))
    if kind in UNIGRAMS:
        return TextTokenizer(_unigram(kind, texts, vocab_size), "</s>")
    if kind in ("gpt2", "llama3", "smollm", "qwen"):
        return TextTokenizer(_byte_level(kind, texts, vocab_size), "</s>")
    return TextTokenizer(_sentencepiece(kind, texts, vocab_size), "</s>")


def _byte_level(kind: str, texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "llama3":
        split = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        own = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, own])
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_QWEN), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # Control tokens beyond the model's vocabulary, as Llama 3 has them.
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def _sentencepiece(kind: str, texts: list[str], vocab_size: int) -> Tokenizer:
    """SentencePiece's BPE as converters write it: digits apart, bytes for missing characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = BpeTrainer(vocab_size=vocab_size - 259, show_progress=False)
    trained.train_from_iterator([re.sub("[0-9]", " ", text) for text in texts], trainer)
    model = json.loads(trained.to_str())["model"]
    first = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *"0123456789"]
    pieces = [*first, *sorted(model["vocab"], key=model["vocab"].get)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: identifier for identifier, piece in enumerate(pieces)},
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    ends = [decoders.ByteFallback(), decoders.Fuse()]
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        strip = decoders.Strip(" ", 1, 0)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *ends, strip])
    elif kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *ends])
        tokenizer.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("\n\n")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=kind == "split words")
        tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), *ends])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def _unigram(kind: str, texts: list[str], vocab_size: int) -> Tokenizer:
    """SentencePiece's Unigram as converters write it."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=vocab_size // 2,
        special_tokens=list(SPECIAL),
        unk_token="<unk>",
        show_progress=False,
    )
    trained.train_from_iterator([re.sub("[0-9]", " ", text) for text in texts[:60]], trainer)
    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    pieces += [(digit, -9.5) for digit in "0123456789" if digit not in dict(pieces)]
    with_bytes = kind == "t5"
    if with_bytes:
        pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(pieces, SPECIAL.index("<unk>"), with_bytes))
    tokenizer.decoder = decoders.Metaspace()
    if with_bytes:
        parts = [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(parts)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer.normalizer = normalizers.NFKC()
        split = pre_tokenizers.WhitespaceSplit()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    if with_bytes:
        tokenizer.add_special_tokens(["<extra_id_0>", "<extra_id_1>"])
    return tokenizer
