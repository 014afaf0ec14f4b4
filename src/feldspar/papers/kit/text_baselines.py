"""Baselines that need no model, on the text of an experiment: a token trigram, and ``xz``."""

import math
from collections.abc import Mapping

from feldspar.evaluate.baselines.all_baselines import OVERALL, held_out_baselines
from feldspar.recipe.load import load_recipe
from feldspar.report.page import Table
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.data import open_shards, seen_tokens

TOKENS_A_SOURCE = 100_000
"""The tokens of each source's validation documents that are scored."""
NAMES = {"trigram": "ngram", "xz": "xz one stream"}
"""The baselines, and their names among all."""


def text_baselines(recipe: str, overrides: tuple[str, ...] = ()) -> dict[str, float]:
    """Return bits per byte of validation documents by a trigram and by ``xz``.

    The trigram is fitted on the training tokens of a run of the recipe with the given overrides.
    ``xz`` compresses all documents of a source as one stream.
    """
    return {
        name: values[OVERALL] for name, values in baselines_by_source(recipe, overrides).items()
    }


def baselines_by_source(
    recipe: str, overrides: tuple[str, ...] = ()
) -> dict[str, dict[str, float]]:
    """Return the bits per byte of each baseline by source, and ``overall``."""
    loaded = load_recipe(recipe, list(overrides)).recipe
    shards = open_shards(loaded)
    tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
    seen = seen_tokens(loaded, shards)
    found = held_out_baselines(shards, tokenizer, seen, "validation", TOKENS_A_SOURCE)
    return {name: dict(found[own]) for name, own in NAMES.items()}


def table_beside_baselines(
    losses: Mapping[str, float], baselines: Mapping[str, float], what: str
) -> Table:
    """Return models of bytes and the baselines in one table, in bits per byte, the best first.

    ``losses`` are nats per byte by the name of a model; ``what`` tells what they were measured on.
    """
    bits = {name: loss / math.log(2) for name, loss in losses.items()}
    bits |= {f"no model: {name}": value for name, value in baselines.items()}
    rows = [[name, f"{bits[name]:.4f}"] for name in sorted(bits, key=lambda name: bits[name])]
    return Table([what, "bits per byte"], rows)
