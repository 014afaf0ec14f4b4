"""Small base tokenizers of the kinds that are in use, trained on a made English, and a target text.

The target language is a cipher of the same text: letters become Arabic ones, so that it has the
statistics of a language, marks of its own, and shares no letter with English.
"""

import json
import re
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.made_text import paragraphs

ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنه"
MISSING = "ثخذ"
"""Letters that SentencePiece bases lack and spell with bytes."""
CIPHER = str.maketrans("abcdefghijklmnopqrstuvwxyz", ARABIC)
KINDS = ("llama", "metaspace", "split words", "gpt2", "llama3")
SPECIAL = ("<unk>", "<s>", "</s>")
_LLAMA3 = r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


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
    if kind in ("gpt2", "llama3"):
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
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=kind == "split words")
        tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), *ends])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer
