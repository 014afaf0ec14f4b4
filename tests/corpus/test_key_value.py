"""Generated pairs of keys and values: what can be known of them, and from how far back."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from feldspar.corpus.readers.key_value import KEYS, PAIR_BYTES, VALUES, pairs_of
from tests.corpus.test_readers import read

READER = {"type": "key_value", "documents": 40, "pairs": 300}


def test_documents_are_the_same_each_time_and_differ_from_each_other() -> None:
    found = read(None, READER)
    assert found == read(None, READER)
    assert len({document.text for document in found}) == len(found) == 40
    assert [document.origin for document in found] == [f"{number:06}" for number in range(40)]
    assert all(len(document.text) == 300 * PAIR_BYTES for document in found)
    assert found[0].text != read(None, READER | {"seed": 1})[0].text
    assert found[:10] == read(None, READER | {"documents": 10}), "documents do not depend on others"


def test_a_key_has_one_value_in_a_document_and_another_one_elsewhere() -> None:
    values: list[dict[str, str]] = []
    for document in read(None, READER):
        pairs = {document.text[place : place + 2] for place in range(0, 600, 2)}
        values.append({pair[0]: pair[1] for pair in pairs})
        assert len(values[-1]) == len(pairs), "a key with two values"
        assert set(values[-1]) <= set(KEYS) and set(values[-1].values()) <= set(VALUES)
    assert len({own[key] for own in values for key in own if key == "a"}) > 1
    assert min(map(len, values)) < 10 and max(map(len, values)) > 60


def test_repetitions_are_near_and_far() -> None:
    pairs = pairs_of(4000, len(KEYS), np.random.default_rng(0))
    last: dict[str, int] = {}
    distances = []
    for place, pair in enumerate(pairs):
        if pair in last:
            distances.append(place - last[pair])
        last[pair] = place
    shares = [np.mean(np.array(distances) > limit) for limit in (1, 32, 64, 128)]
    assert shares[0] < 0.95, "some pairs come again at once"
    assert shares[1] > 0.3 and shares[2] > 0.15 and shares[3] > 0.05


def test_a_generated_source_takes_no_path() -> None:
    with pytest.raises(ValidationError, match="takes no path"):
        read(Path("x"), READER)
