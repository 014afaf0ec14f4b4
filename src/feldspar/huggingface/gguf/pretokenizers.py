"""Pre-tokenizers that llama.cpp knows by name (``tokenizer.ggml.pre``), as in tokenizer.json.

A GGUF file holds a byte-level BPE's tokens and merges, but only the name of the rule that splits a
text before the merges. llama.cpp keeps these rules in its own code (``llama-vocab.cpp``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError

Json = dict[str, Any]

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}|{REST}"
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
NFC = {"type": "NFC"}


def _bytes(use_regex: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _in_turn(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@dataclass(frozen=True)
class Pretokenizer:
    """The parts of a ``tokenizer.json`` that one name stands for."""

    pre_tokenizer: Json
    normalizer: Json | None = None
    """The normalizer of the published tokenizers; llama.cpp itself applies none."""
    ignore_merges: bool = False
    adds_bos: bool = False
    """Tell whether a text begins with the token BOS where the file does not say it."""


_DIGITS = _in_turn({"type": "Digits", "individual_digits": True}, _bytes(True))
_FALCON = _in_turn(
    {"type": "Punctuation", "behavior": "Contiguous"},
    _bytes(True),
    {"type": "Digits", "individual_digits": False},
    _split("[0-9][0-9][0-9]"),
)
_LLAMA3 = _in_turn(_split(LLAMA3), _bytes(False))

PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    "gpt-2": Pretokenizer(_bytes(True)),
    "smollm": Pretokenizer(_DIGITS),
    "starcoder": Pretokenizer(_DIGITS),
    "llama-bpe": Pretokenizer(_LLAMA3, ignore_merges=True, adds_bos=True),
    "dbrx": Pretokenizer(_LLAMA3),
    "qwen2": Pretokenizer(_in_turn(_split(QWEN2), _bytes(False)), NFC),
    "olmo": Pretokenizer(_bytes(True), NFC),
    "mpt": Pretokenizer(_bytes(True), NFC),
    "jais": Pretokenizer(_bytes(True)),
    "falcon": Pretokenizer(_FALCON),
    "bloom": Pretokenizer(_in_turn(_split(BLOOM), _bytes(False))),
}
"""Rules by name. Where several names have one rule, an exported file gets the first of them."""


def pretokenizer_of(name: str | None) -> Pretokenizer:
    """Return the rule of a name. Raises UserError for a name that is not in the table."""
    if name not in PRETOKENIZERS:
        raise UserError(
            "tokenizer.ggml.pre: this pre-tokenizer is not known",
            found=name or "no such key",
            allowed=PRETOKENIZERS,
            do="import the model from its Hugging Face folder, which says the rule itself",
        )
    return PRETOKENIZERS[name]


def name_of_pretokenizer(tokenizer: Json) -> str:
    """Return llama.cpp's name for the rule of a ``tokenizer.json``.

    Raises UserError where llama.cpp has no such rule: it would split texts in another way than the
    model was trained with.
    """
    found = _plain(tokenizer.get("pre_tokenizer"))
    normalizer = tokenizer.get("normalizer")
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    fitting = {
        name: rule
        for name, rule in PRETOKENIZERS.items()
        if rule.pre_tokenizer == found and rule.ignore_merges == ignore_merges
    }
    if normalizer not in (None, NFC) or not fitting:
        raise UserError(
            "the tokenizer splits or changes texts by a rule that llama.cpp does not have",
            found=f"normalizer {normalizer}, pre_tokenizer {tokenizer.get('pre_tokenizer')}",
            allowed="the rules of " + ", ".join(PRETOKENIZERS),
            do="export with --format hf",
        )
    same = [name for name, rule in fitting.items() if rule.normalizer == normalizer]
    return (same or list(fitting))[0]


def _plain(step: Any) -> Any:
    """Return a pre-tokenizer without what changes no token, and a pattern in one spelling."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Sequence":
        steps = [_plain(each) for each in step["pretokenizers"]]
        if steps == [_split(GPT2), _bytes(False)]:
            return _bytes(True)
        return steps[0] if len(steps) == 1 else _in_turn(*steps)
    if step.get("type") == "ByteLevel":
        return {"use_regex": True} | step | {"trim_offsets": True}
    return step
