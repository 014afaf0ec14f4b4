"""Encode the strings of special tokens as ordinary text, whatever the kind of tokenizer.

The library does not look for them where ``encode_special_tokens`` is on. But a model may still find
them: a Unigram knows all its pieces, and so does a BPE that looks up whole words. Then a document
could end itself.
"""

import json
from typing import Any

from tokenizers import Tokenizer

from feldspar.core.errors import UserError

UNTYPED = "\ufdd0 {} \ufdd0"
"""Piece that no text is split into: it has a space inside, and a character that is none."""


def plain_text_encoder(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that gives the same ids but those of special tokens.

    That is ``tokenizer`` itself unless its model finds their strings in texts.
    ``encode_special_tokens`` must be on. Raises UserError if they are still found.
    """
    found = _found_in_text(tokenizer)
    if not found:
        return tokenizer
    parts = _without_special_tokens(tokenizer)
    encoder = Tokenizer.from_str(json.dumps(parts))
    unknown = parts["model"].get("unk_id")
    if "unk_token" in parts["model"]:
        unknown = parts["model"]["vocab"].get(parts["model"]["unk_token"])
    for content, token in found.items():
        # Any text may hold characters that are unknown.
        if token != unknown and token in encoder.encode(content, add_special_tokens=False).ids:
            raise UserError(
                f"the tokenizer encodes the text {content!r} to that special token, so that a "
                "document could contain it",
                do="use a tokenizer of type BPE or Unigram",
            )
    return encoder


def _found_in_text(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the special tokens, and their ids, that the model makes of their own strings."""
    found = {}
    for token, added in tokenizer.get_added_tokens_decoder().items():
        text = added.content
        if added.special and tokenizer.model.token_to_id(text) is not None:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            ids += [each.id for each in tokenizer.model.tokenize(text)]
            if token in ids:
                found[text] = token
    return found


def _without_special_tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the parts of a tokenizer that knows special tokens by their ids alone."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    model, added = parts["model"], parts["added_tokens"]
    special = {token["content"]: token["id"] for token in added if token["special"]}
    # The library would give the other added tokens the next free ids.
    ids = special | {token["content"]: token["id"] for token in added}
    ids = {UNTYPED.format(n) if name in special else name: n for name, n in ids.items()}
    if model["type"] == "Unigram":
        vocabulary = model["vocab"]
        least = min(score for _, score in vocabulary)
        pieces = {n: [name, score] for n, (name, score) in enumerate(vocabulary)}
        for name, n in ids.items():
            pieces[n] = [name, pieces[n][1] if n in pieces else least]
        empty = (n for n in range(max(pieces)) if n not in pieces)
        pieces |= {n: [UNTYPED.format(n), least] for n in empty}
        model["vocab"] = [pieces[n] for n in sorted(pieces)]
    else:
        own = {name: n for name, n in model["vocab"].items() if name not in special}
        model["vocab"] = own | ids
        if model.get("unk_token") in special:
            model["unk_token"] = UNTYPED.format(special[model["unk_token"]])
        if model["type"] == "BPE":
            gone, merges = special.keys(), model["merges"]
            model["merges"] = [m for m in merges if gone.isdisjoint((*m, "".join(m)))]
    parts["added_tokens"] = [token for token in added if not token["special"]]
    parts["post_processor"] = None
    return parts
