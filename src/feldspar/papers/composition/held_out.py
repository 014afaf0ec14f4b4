"""Three scores of one model on files that no arm has read: the text, gaps in code, long positions.

The files of the held-out sources are told apart from those of training by the first letters of
their names. Of each the first DOCUMENT_TOKENS tokens are scored.
"""

from dataclasses import dataclass, replace
from math import log

import numpy as np

from feldspar.evaluate.baselines.trigram import TokenTrigram
from feldspar.evaluate.loss.by_position import losses_by_position
from feldspar.evaluate.loss.held_out_loss import held_out_documents
from feldspar.evaluate.loss.text_loss import document_losses
from feldspar.evaluate.tasks.filled_gaps import InfillingScore, Reading, evaluate_infilling
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

GUIDES, CODE = "guides", "code"
HELD_OUT = {GUIDES: "guides-held-out", CODE: "code-held-out"}
"""The source of each kind of text that no mixture reads."""
DOCUMENT_TOKENS = 1024
CONTEXT_TOKENS = 256
LONG = slice(128, CONTEXT_TOKENS)
"""Long positions of a context."""
LITTLE_CONTEXT_TOKENS = 16
"""Windows of this size show what a model knows without a long context."""
WINDOW_TOKENS = 128
"""Tokens of a window with a gap."""
GAP_TOKENS = 65536
"""Tokens of held-out code that are searched for gaps, in whole files."""
READINGS = (Reading.PREFIX_FIRST, Reading.PREFIX_ALONE)
GAPS_SEED = 0
"""The same gaps for every model."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out files of both kinds, in tokens, and the bytes of each."""

    tokens: dict[str, list[np.ndarray]]
    bytes: dict[str, list[int]]


def read_held_out(shards: ShardSet, tokenizer: TextTokenizer) -> HeldOut:
    """Return the beginnings of the held-out files; which split holds them makes no difference."""
    tokens = {
        kind: [
            document[:DOCUMENT_TOKENS]
            for split in ("train", "validation")
            for document in held_out_documents(shards, split, source, tokenizer).tokens
        ]
        for kind, source in HELD_OUT.items()
    }
    return HeldOut(
        tokens,
        {
            kind: [len(tokenizer.decode(document).encode()) for document in own]
            for kind, own in tokens.items()
        },
    )


def text_bits(
    model: TextModel, held_out: HeldOut, context_tokens: int = CONTEXT_TOKENS
) -> dict[str, list[float]]:
    """Return the bits of each file of each kind, read in windows of a context."""
    reader = replace(model, longest_context=context_tokens)
    return {
        kind: [
            loss.nats / log(2)
            for loss in document_losses(reader, documents, held_out.bytes[kind], ends=False)
        ]
        for kind, documents in held_out.tokens.items()
    }


def long_loss(model: TextModel, held_out: HeldOut) -> float:
    """Return the nats per token at the long positions of whole windows."""
    windows = [
        document[begin : begin + CONTEXT_TOKENS]
        for documents in held_out.tokens.values()
        for document in documents
        for begin in range(0, len(document) - CONTEXT_TOKENS + 1, CONTEXT_TOKENS)
    ]
    return float(losses_by_position(model, windows, CONTEXT_TOKENS)[:, LONG].mean())


def gap_bits(model: TextModel, shards: ShardSet) -> dict[str, float]:
    """Return the bits per byte of middles in held-out code, by what was read before them.

    ``shards`` are those that the model was trained on; the held-out files are alike in all.
    """
    source = HELD_OUT[CODE]
    found = evaluate_infilling(
        model, shards, GAPS_SEED, "train", GAP_TOKENS, READINGS, WINDOW_TOKENS, [source]
    )
    score = sum(found[source], InfillingScore())
    return {reading.value: score.bits_per_byte(reading) for reading in READINGS}


def trigram_bits(shards: ShardSet, tokenizer: TextTokenizer, held_out: HeldOut) -> dict[str, float]:
    """Return the bits per byte of a token trigram that has counted all training text once."""
    end = tokenizer.end_of_document_id
    stretches = [
        np.concatenate([[end], document, [end]])
        for source in shards.sources("train")
        if source not in HELD_OUT.values()
        for document in held_out_documents(shards, "train", source, tokenizer).tokens
    ]
    trigram = TokenTrigram.fit(stretches, tokenizer.vocab_size, end)
    found = {}
    for kind, documents in held_out.tokens.items():
        bits = 0.0
        for document in documents:
            before = np.concatenate([[end, end], document])
            contexts = np.stack([before[:-2], before[1:-1]], axis=1)
            bits -= float(np.log2(trigram.probabilities(contexts, document)).sum())
        found[kind] = bits / sum(held_out.bytes[kind])
    return found
