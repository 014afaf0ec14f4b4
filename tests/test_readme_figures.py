"""Every figure in README is that of a committed record; no figure stands there without one.

Words of other pages that no command writes are compared in the same way.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stated:
    """Words of README whose figures a record holds."""

    words: str
    """The words, with a place for each figure."""
    record: str
    figures: Callable[[dict[str, Any]], tuple[float, ...]]
    """The figures in the order of their places."""
    page: str = "README.md"

    def text(self) -> str:
        """The words as the record has them."""
        record = json.loads((ROOT / self.record).read_text(encoding="utf-8"))
        return self.words.format(*self.figures(record))


def percent_right(record: dict[str, Any], arm: str) -> float:
    return 100 * fmean(record["figures"]["accuracy"][arm])


def bits_of_arm(record: dict[str, Any], arm: str) -> float:
    rows = {row[0]: row for row in record["tables"][0]["rows"]}
    return float(rows[arm][5])


FIGURES = (
    Stated(
        "on two CPU cores takes {:.0f} minutes. It reads {:,} documents, keeps {:,}, and trains a "
        "decoder of {:.1f} M parameters on {:.1f} M tokens. The model needs {:.2f} bits per byte "
        "of held-out text. A token trigram fitted on the same tokens needs {:.2f}, and `xz -9` "
        "needs {:.2f} (a source as one stream)",
        "docs/results/quickstart.json",
        lambda record: (
            record["seconds"]["total"] / 60,
            record["documents"]["read"],
            record["documents"]["kept"],
            record["parameters"] / 1e6,
            record["trained_tokens"] / 1e6,
            record["bits_per_byte"]["overall"],
            record["baselines"]["ngram"],
            record["baselines"]["xz one stream"],
        ),
    ),
    Stated(
        "fine-tune dense: {:.1f} % right; dense throughout {:.1f} %, a bag of words {:.1f} %",
        "docs/results/mediswift.json",
        lambda record: (
            percent_right(record, "75%"),
            percent_right(record, "dense"),
            100 * record["figures"]["without_a_model"]["bag of words of each name"],
        ),
    ),
    Stated(
        "S6 needs {:.0f} times less memory for an image than EfficientNet-B7 (paper: {:.1f})",
        "docs/results/revbifpn.json",
        lambda record: (
            record["figures"]["memory"]["B7"]["alive"] / record["figures"]["memory"]["S6"]["alive"],
            19.8,
        ),
    ),
    Stated(
        "in blocks of 4 x 1, halve the time of a training step on a processor: {:.2f} times as "
        "fast as dense",
        "benchmarks/results/sparse_training.json",
        lambda record: (record["contenders"]["75 %, 4 x 1"]["times_as_fast_as_dense"],),
    ),
    Stated(
        "all experiments together take {:.0f} minutes of two cores",
        "benchmarks/results/quick_reproductions.json",
        lambda record: (sum(row["minutes"] for row in record["papers"].values()),),
    ),
    Stated(
        "needs {:.3f} bits per byte of test documents, a token trigram fitted on the same tokens "
        "needs {:.3f}, and `xz` {:.3f} (a source as one stream)",
        "docs/results/trunk.json",
        lambda record: (
            record["bits_per_byte"],
            record["baselines"]["ngram"]["overall"],
            record["baselines"]["xz one stream"]["overall"],
        ),
        "docs/results/README.md",
    ),
    Stated(
        "a small model with all of them needs {:.3f} bits per byte of held-out text where the "
        "plain recipe needs {:.3f}, the plain recipe on text without duplicates {:.3f}, and a "
        "token trigram {:.3f}",
        "docs/results/composition.json",
        lambda record: tuple(
            bits_of_arm(record, arm)
            for arm in ("all", "plain", "plain-deduplicated", "token trigram")
        ),
    ),
)
NO_RESULTS = {
    "blocks of code": r"```.*?```",
    "commands and settings": r"`[^`]*`",
    "the end of a link": r"\]\([^)]*\)",
    "numbers on arXiv": r"\[\d{4}\.\d{5}\b",
    "versions and licences": r"Python \d+\.\d+|Apache-2\.0|WordNet 3\.0|PSF-2\.0",
    "names of models": r"BTLM-3B-8K|OLMo 2|Phi-3",
    "methods, as the papers have them": r"at 20 tokens per parameter",
    "the setting of a measurement": r"at d 512 with one thread",
    "counts of verdicts, which tests/papers/test_results.py compares": (
        r"\[(\d+ (reproduced|mechanism shown|not borne out|needs scale|no verdict)(, )?)+"
    ),
}
"""Numbers of README that are no results, by kind."""


def text_of(page: str = "README.md") -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("stated", FIGURES, ids=lambda stated: stated.record)
def test_a_figure_is_that_of_its_record(stated: Stated) -> None:
    assert stated.text() in text_of(stated.page), f"write these words into {stated.page}"


def test_no_figure_stands_without_a_record() -> None:
    text = text_of()
    for stated in FIGURES:
        text = text.replace(stated.text(), "")
    for pattern in NO_RESULTS.values():
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    left = [line for line in text.splitlines() if re.search(r"\d", line)]
    assert left == [], "add the record of these figures to FIGURES"


def test_every_kind_of_other_numbers_occurs() -> None:
    assert [
        kind for kind, each in NO_RESULTS.items() if not re.search(each, text_of(), re.DOTALL)
    ] == []
