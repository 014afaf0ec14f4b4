"""Describe a tokenizer folder by the keys of GGUF, for llama.cpp's own implementations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json
from feldspar.huggingface.gguf.pretokenizers import Json, name_of_pretokenizer
from feldspar.huggingface.gguf.tokenizer_in import (
    BYTE,
    CHAT_TEMPLATE,
    CONTROL,
    NORMAL,
    PREFIX,
    SPACE,
    SPECIAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from feldspar.tokens.tokenizer.declaration import Declaration
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE

PADDING = "[PAD{}]"
"""The string of a row that no token uses."""
BYTE_TOKENS = frozenset(f"<0x{value:02X}>" for value in range(256))
LEAST_SCORE = -1e9
"""The score of a token that no merge makes."""


def tokenizer_metadata(folder: Path, n_rows: int) -> dict[str, Any]:
    """Return GGUF's keys of the tokenizer in ``folder``, for a model of ``n_rows`` rows.

    Raises UserError for a tokenizer that llama.cpp cannot compute.
    """
    tokenizer = read_json(folder / TOKENIZER_FILE)
    declaration = Declaration.read(folder)
    tokens, types = _tokens(tokenizer, n_rows)
    found = _model(tokenizer, tokens, types) | {"tokens": tokens, "token_type": types}
    ids = {token: identifier for identifier, token in enumerate(tokens)}
    for name, key in SPECIAL.items():
        if (token := declaration.special_tokens.get(name)) in ids:
            found[key] = ids[token]
    framed = Tokenizer.from_file(str(folder / TOKENIZER_FILE)).encode("a").ids
    found["add_bos_token"] = framed[0] == found.get("bos_token_id")
    found["add_eos_token"] = framed[-1] == found.get("eos_token_id")
    named = {PREFIX + key: value for key, value in found.items()}
    template = declaration.chat_template
    return named if template is None else named | {CHAT_TEMPLATE: template}


def _tokens(tokenizer: Json, n_rows: int) -> tuple[list[str], list[int]]:
    """Return strings and kinds of all rows."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {token: identifier for identifier, (token, _) in enumerate(vocabulary)}
    tokens = [PADDING.format(row) for row in range(n_rows)]
    types = [UNUSED] * n_rows
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids = vocabulary | {content: token["id"] for content, token in added.items()}
    unknown = tokenizer["model"].get("unk_token")
    for token, identifier in ids.items():
        if not 0 <= identifier < n_rows:
            raise UserError(
                f"the tokenizer's token {token!r} has no row in the model",
                found=identifier,
                allowed=f"0 to {n_rows - 1}",
            )
        tokens[identifier] = token
        types[identifier] = _kind(token, added.get(token), token == unknown, tokenizer)
    return tokens, types


def _kind(token: str, added: Json | None, unknown: bool, tokenizer: Json) -> int:
    byte_level = (tokenizer.get("decoder") or {}).get("type") == "ByteLevel"
    if unknown and not byte_level:
        return UNKNOWN
    if added is None:
        return BYTE if not byte_level and token in BYTE_TOKENS else NORMAL
    if added["special"]:
        return CONTROL
    if added["lstrip"] or added["rstrip"] or added["single_word"]:
        raise UserError(
            f"the added token {token!r} takes spaces around it or stands for whole words only, "
            "which llama.cpp does not do",
            do="export with --format hf",
        )
    return USER_DEFINED


def _model(tokenizer: Json, tokens: list[str], types: list[int]) -> dict[str, Any]:
    kind = tokenizer["model"].get("type")
    if kind == "BPE" and (tokenizer.get("decoder") or {}).get("type") == "ByteLevel":
        merges = [" ".join(merge) for merge in _merges(tokenizer)]
        pre = name_of_pretokenizer(tokenizer)
        return {"model": "gpt2", "pre": pre, "merges": merges, "add_space_prefix": False}
    if kind == "BPE" and tokenizer["model"].get("byte_fallback"):
        scores = _bpe_scores(tokenizer, tokens, types)
        return {
            "model": "llama",
            "pre": "default",
            "scores": scores,
            "add_space_prefix": _prefixes_space(tokenizer),
        }
    raise UserError(
        "llama.cpp does not have this kind of tokenizer, or computes it in another way",
        found=kind,
        allowed="byte-level BPE, SentencePiece's BPE with bytes",
        do="export with --format hf",
    )


def _merges(tokenizer: Json) -> list[list[str]]:
    """Return the merges; older files join the two tokens by a space."""
    merges = tokenizer["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in merges]


def _prefixes_space(tokenizer: Json) -> bool:
    """Tell whether a text gets a space before it; raise UserError for any other change."""
    normalizer, split = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefix = {"type": "Prepend", "prepend": SPACE}
    if split is None and steps in ([spaces], [prefix, spaces]):
        return steps[0] == prefix
    if (
        not steps
        and isinstance(split, Mapping)
        and (split.get("type"), split.get("replacement"), split.get("split"))
        == ("Metaspace", SPACE, False)
    ):
        return split.get("prepend_scheme") != "never"
    raise UserError(
        "the tokenizer changes or splits texts by a rule that llama.cpp does not have",
        found=f"normalizer {normalizer}, pre_tokenizer {split}",
        do="export with --format hf",
    )


def _bpe_scores(tokenizer: Json, tokens: list[str], types: list[int]) -> list[float]:
    """Return scores that make llama.cpp join the same pairs in the same order.

    llama.cpp joins any two neighbours that make a token; hence every way to make one must be among
    the merges. Raises UserError where one is not.
    """
    vocabulary = tokenizer["model"]["vocab"]
    first: dict[str, int] = {}
    merges = _merges(tokenizer)
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
    listed = {(left, right) for left, right in merges}
    for token, kind in zip(tokens, types, strict=True):
        if kind != NORMAL:
            continue
        for place in range(1, len(token)):
            pair = token[:place], token[place:]
            if pair[0] in vocabulary and pair[1] in vocabulary and pair not in listed:
                raise UserError(
                    "the tokenizer makes a token in fewer ways than llama.cpp would",
                    found=f"{pair[0]!r} and {pair[1]!r} do not make {token!r}",
                    do="export with --format hf",
                )
    return [
        -float(first[token]) if token in first else (0.0 if len(token) == 1 else LEAST_SCORE)
        for token in tokens
    ]
