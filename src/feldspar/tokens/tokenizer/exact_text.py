"""Make a tokenizer that decodes to exactly the text that it encoded, even in parts.

SentencePiece tokenizers put a space before a text and remove it in decoding. A text that is encoded
in parts then gets a space at each seam ("def f" and "oo(x):" become "def f oo(x):"). Without both
steps, a document's own leading space is an ordinary character.
"""

import json
from typing import Any

from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

PROBE = "def  f(x):\n\treturn '\u00e9\u6771\u4eac x\u0301 \U0001f600'  # It's 12.5\n\n Z "


def exact_tokenizer(tokenizer: TextTokenizer) -> TextTokenizer:
    """Return ``tokenizer`` with the same ids, but without the space before a text.

    Raises UserError if a text encoded in parts is still not restored.
    """
    parts: dict[str, Any] = json.loads(tokenizer.to_json())
    changed = parts | {
        name: _without_prefix_space(parts[name])
        for name in ("normalizer", "pre_tokenizer", "decoder")
    }
    if changed != parts:
        tokenizer = TextTokenizer(
            Tokenizer.from_str(json.dumps(changed)),
            tokenizer.end_of_document,
            declaration=tokenizer.declaration,
        )
    for cut in range(len(PROBE) + 1):
        ids = tokenizer.encode_packed([PROBE[:cut], PROBE[cut:]])
        found = tokenizer.decode(tokenizer.unpack(b"".join(ids)))
        if found != PROBE:
            raise UserError(
                "fill_in_the_middle: the tokenizer does not restore a text that it "
                "encodes in two parts",
                found=f"{PROBE!r} became {found!r}",
                do="use a byte-level tokenizer, or one that does not normalise text",
            )
    return tokenizer


def _without_prefix_space(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a part of tokenizer.json (such as its decoder) without the step that adds a space."""
    if part is None:
        return None
    kind = part["type"]
    if kind == "Prepend" or (kind == "Strip" and part.get("start")):
        return None
    if kind == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if kind == "ByteLevel" and part.get("add_prefix_space"):
        return {**part, "add_prefix_space": False}
    if kind == "Sequence":
        (key,) = part.keys() & {"normalizers", "pretokenizers", "decoders"}
        inner = [kept for item in part[key] if (kept := _without_prefix_space(item)) is not None]
        return {**part, key: inner}
    return part
