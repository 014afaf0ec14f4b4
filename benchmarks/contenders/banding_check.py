"""What bands and pre-filter do to the true pairs of a corpus."""

from typing import Any

import numpy as np

from contenders.all_pairs import Truth
from feldspar.corpus.clean import cleaned_texts
from feldspar.corpus.duplicates.candidates import least_agreement
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, agreement, sketch_texts
from feldspar.corpus.packed import PackedTexts
from feldspar.recipe.sections.corpus import PRESETS

THRESHOLD = 0.8


def bands_and_filter(texts: list[str], truth: Truth) -> dict[str, Any]:
    """Of the true pairs of different texts: how many meet in a band, and pass the filter."""
    _, first = np.unique(truth.texts, return_index=True)
    representative = first[truth.texts[truth.pairs]]
    apart = representative[:, 0] != representative[:, 1]
    pairs, chosen = np.unique(np.sort(representative[apart], axis=1), axis=0, return_index=True)
    jaccard = truth.jaccard[apart][chosen]
    asked = np.zeros(len(texts), bool)
    asked[pairs] = True
    encoded = PackedTexts.of(text.encode("utf-8", "surrogatepass") for text in texts)
    values = sketch_texts(*cleaned_texts(encoded), asked)
    one, other = values[pairs[:, 0]], values[pairs[:, 1]]
    agreements = agreement(one, other)
    banding = PRESETS["verified"]
    equal = (one == other)[:, : banding.bands * banding.rows]
    met = equal.reshape(-1, banding.bands, banding.rows).all(axis=2).any(axis=1)
    expected = 1 - (1 - jaccard**banding.rows) ** banding.bands
    return {
        "pairs": len(pairs),
        "meet_in_a_band": float(met.mean()),
        "expected_to_meet": float(expected.mean()),
        "pass_the_filter": float((agreements >= least_agreement(THRESHOLD)).mean()),
        "mean_error_of_the_estimate": float((agreements / SKETCH_VALUES - jaccard).mean()),
    }
