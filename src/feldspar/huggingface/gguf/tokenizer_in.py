"""Rebuild the tokenizer that a GGUF file holds as ``tokenizer.json`` and ``tokenizer_config.json``.

llama.cpp knows three kinds that language models use, named by the program that made them: ``gpt2``
(byte-level BPE), ``llama`` (SentencePiece's BPE with scores) and ``t5`` (SentencePiece's Unigram).
"""

import base64
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.huggingface.gguf.gguf_file import GgufFile
from feldspar.huggingface.gguf.pretokenizers import Json, pretokenizer_of
from feldspar.tokens.tokenizer.declaration import CONFIG_FILE
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens in the list ``tokenizer.ggml.token_type``."""
PREFIX = "tokenizer.ggml."
CHAT_TEMPLATE = "tokenizer.chat_template"
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
"""Keys of ``tokenizer_config.json``, and the keys of the same tokens in GGUF."""
SPACE = "\u2581"


def has_tokenizer(file: GgufFile) -> bool:
    """Tell whether a file holds a tokenizer."""
    return file.metadata.get(PREFIX + "model", "none") not in ("none", "no_vocab")


def write_tokenizer_of(file: GgufFile, folder: Path) -> None:
    """Write the tokenizer of ``file`` into ``folder``.

    Raises UserError for kinds and pre-tokenizers that are not known, and for lists that lie.
    """
    kind = file.require(PREFIX + "model")
    if kind not in READERS:
        raise UserError(
            f"{file.path}: this kind of tokenizer is not known", found=kind, allowed=READERS
        )
    tokens, types = _tokens(file)
    special = _special(file, tokens)
    adds_bos, parts = READERS[kind](file, tokens, types)
    adds_bos = bool(file.metadata.get(PREFIX + "add_bos_token", adds_bos))
    begin = special.get("bos_token") if adds_bos else None
    tokenizer = parts | {
        "version": "1.0",
        "added_tokens": _added(tokens, types, set(special.values())),
        "post_processor": None if begin is None else _beginning(begin, tokens.index(begin)),
    }
    configuration: Json = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    configuration["clean_up_tokenization_spaces"] = False
    configuration["add_bos_token"] = adds_bos
    if template := file.metadata.get(CHAT_TEMPLATE):
        configuration["chat_template"] = template
    write_atomically(folder / TOKENIZER_FILE, _checked(tokenizer, file) + "\n")
    write_json(folder / CONFIG_FILE, configuration, ascii_only=True)


def _checked(tokenizer: Json, file: GgufFile) -> str:
    """Return the text of the tokenizer. Raises UserError where the library refuses it."""
    import json

    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(tokenizer)).to_str(pretty=True)
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(
            f"{file.path} holds a tokenizer whose parts contradict each other", found=str(error)
        ) from error


def _tokens(file: GgufFile) -> tuple[list[str], list[int]]:
    """Return the strings and the kinds of all tokens, without padding at the end."""
    tokens = list(file.require(PREFIX + "tokens"))
    types = list(file.metadata.get(PREFIX + "token_type") or [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise UserError(
            f"{file.path}: tokenizer.ggml.token_type does not hold one kind for each token",
            found=f"{len(types)} kinds of {len(tokens)} tokens",
        )
    while types and types[-1] == UNUSED:
        types.pop()
        tokens.pop()
    if len(set(tokens)) != len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.tokens names a token twice")
    return tokens, types


def _special(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    """Return the special tokens that the file names, by their keys in tokenizer_config.json."""
    found = {}
    for name, key in SPECIAL.items():
        identifier = file.metadata.get(PREFIX + key)
        if identifier is None:
            continue
        if not isinstance(identifier, int) or not 0 <= identifier < len(tokens):
            raise UserError(
                f"{file.path}: {PREFIX}{key} is no token of the vocabulary",
                found=identifier,
                allowed=f"0 to {len(tokens) - 1}",
            )
        found[name] = tokens[identifier]
    return found


def _added(tokens: list[str], types: list[int], special: set[str]) -> list[Json]:
    """Return the tokens that are found by their strings, before anything is split."""
    return [
        {
            "id": identifier,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for identifier, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED, UNKNOWN) or token in special
    ]


def _beginning(token: str, identifier: int) -> Json:
    """Return the post-processor that puts the token BOS before a text."""
    text = {"Sequence": {"id": "A", "type_id": 0}}
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, begin, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [identifier], "tokens": [token]}},
    }


def _byte_level(file: GgufFile, tokens: list[str], types: list[int]) -> tuple[bool, Json]:
    """Return a byte-level BPE; added tokens at the end of the vocabulary stand beside the model."""
    rule = pretokenizer_of(file.metadata.get(PREFIX + "pre"))
    own = len(tokens)
    while own and types[own - 1] in (CONTROL, USER_DEFINED):
        own -= 1
    return rule.adds_bos, {
        "normalizer": rule.normalizer,
        "pre_tokenizer": rule.pre_tokenizer,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "vocab": {token: identifier for identifier, token in enumerate(tokens[:own])},
            "merges": _merges(file),
            "ignore_merges": rule.ignore_merges,
        },
    }


def _merges(file: GgufFile) -> list[list[str]]:
    merges = [merge.split(" ") for merge in file.require(PREFIX + "merges")]
    wrong = next((merge for merge in merges if len(merge) != 2), None)
    if wrong is not None:
        raise UserError(
            f"{file.path}: tokenizer.ggml.merges holds an entry that does not join two tokens",
            found=" ".join(wrong),
        )
    return merges


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> tuple[bool, Json]:
    """Return SentencePiece's BPE: the pair whose joined token has the highest score joins first."""
    scores = _scores(file, len(tokens))
    ids = {token: identifier for identifier, token in enumerate(tokens)}
    joined = []
    for token, score, kind in zip(tokens, scores, types, strict=True):
        if kind not in (NORMAL, UNUSED):
            continue
        for place in range(1, len(token)):
            left, right = ids.get(token[:place]), ids.get(token[place:])
            if left is not None and right is not None:
                joined.append((-score, ids[token], left, right))
    merges = [[tokens[left], tokens[right]] for *_, left, right in sorted(joined)]
    spaces: list[Json] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    prefixed = file.metadata.get(PREFIX + "add_space_prefix", True)
    unknown = [token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN]
    before = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    return True, {
        "normalizer": {"type": "Sequence", "normalizers": [*before, *spaces]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *after,
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": ids,
            "merges": merges,
            "unk_token": unknown[0] if unknown else None,
            "fuse_unk": True,
            "byte_fallback": BYTE in types,
        },
    }


def _unigram(file: GgufFile, tokens: list[str], types: list[int]) -> tuple[bool, Json]:
    """Return SentencePiece's Unigram model."""
    scores = _scores(file, len(tokens))
    prefixed = file.metadata.get(PREFIX + "add_space_prefix", True)
    spaces = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always" if prefixed else "never",
        "split": False,
    }
    normalizers: list[Json] = []
    if table := file.metadata.get(PREFIX + "precompiled_charsmap"):
        encoded = base64.b64encode(bytes(value % 256 for value in table)).decode("ascii")
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if file.metadata.get(PREFIX + "remove_extra_whitespaces", False):
        many = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        normalizers += [{"type": "Strip", "strip_left": True, "strip_right": True}, many]
    return False, {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": spaces,
        "decoder": spaces,
        "model": {
            "type": "Unigram",
            "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)],
            "unk_id": types.index(UNKNOWN) if UNKNOWN in types else None,
            "byte_fallback": BYTE in types,
        },
    }


def _scores(file: GgufFile, count: int) -> list[float]:
    scores = file.require(PREFIX + "scores")[:count]
    if len(scores) != count:
        raise UserError(
            f"{file.path}: tokenizer.ggml.scores does not hold one number for each token",
            found=f"{len(scores)} numbers for {count} tokens",
        )
    return scores


READERS: dict[str, Any] = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _unigram}
"""Readers by the name of the kind; each returns the default of add_bos and the parts."""
