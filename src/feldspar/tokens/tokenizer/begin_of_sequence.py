"""Make a tokenizer begin each text with its begin-of-sequence token, or stop doing so.

The post-processor in ``tokenizer.json`` decides, so that ``transformers`` encodes texts as training
read them.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

TEMPLATE = "TemplateProcessing"


def with_begin_of_sequence(tokenizer: TextTokenizer, begins: bool) -> TextTokenizer:
    """Return the tokenizer with the token before each text (``begins``), or without it.

    Raises UserError if it names no such token, or its post-processor cannot be changed.
    """
    if tokenizer.adds_begin_of_sequence is begins:
        return tokenizer
    begin = tokenizer.begin_of_sequence_id
    name = None if begin is None else tokenizer.piece(begin)
    if begin is None or name is None:
        raise UserError(
            "tokenizer.begin_of_sequence: true, but the tokenizer names no such token",
            do="add bos_token to its tokenizer_config.json, or remove the setting",
        )
    parts: dict[str, Any] = json.loads(tokenizer.to_json())
    steps = _steps(parts["post_processor"])
    template = next((step for step in steps if step["type"] == TEMPLATE), None)
    if template is None and not begins:
        raise UserError(
            "tokenizer.begin_of_sequence: false, but the post-processor of tokenizer.json adds the "
            "token in a way that cannot be changed",
            found=", ".join(step["type"] for step in steps),
            do="remove the token from the post-processor, or remove the setting",
        )
    others = [step for step in steps if step is not template]
    changed = _template(template, name, begin, begins)
    parts["post_processor"] = {"type": "Sequence", "processors": [*others, changed]}
    return TextTokenizer(
        Tokenizer.from_str(json.dumps(parts)),
        tokenizer.end_of_document,
        tokenizer.extension,
        tokenizer.declaration,
    )


def _steps(processor: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    return list(processor["processors"]) if processor["type"] == "Sequence" else [dict(processor)]


def _template(old: Mapping[str, Any] | None, name: str, begin: int, begins: bool) -> dict[str, Any]:
    """Return the template of one text and of two, with or without the token at the beginning."""
    if old is None:
        first, second = ({"Sequence": {"id": part, "type_id": 0}} for part in "AB")
        old = {"single": [first], "pair": [first, second], "special_tokens": {}}
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    bodies = {
        key: [each for each in old[key] if each.get("SpecialToken", {}).get("id") != name]
        for key in ("single", "pair")
    }
    tokens = {key: value for key, value in old["special_tokens"].items() if key != name}
    if begins:
        bodies = {key: [token, *body] for key, body in bodies.items()}
        tokens[name] = {"id": name, "ids": [begin], "tokens": [name]}
    return {"type": TEMPLATE, **bodies, "special_tokens": tokens}
