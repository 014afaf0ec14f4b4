"""The card shows foreign text as it is, and says what it has to."""

from typing import Any

import pytest

from feldspar.release.card import model_card, plain_text, result_rows


def record(
    description: str = "A model.",
    licence: str = "cc-by",
    source: str = "web",
    architecture: str = "LlamaForCausalLM",
    planned: int | None = 500,
) -> dict[str, Any]:
    """The record of a release, as far as the card reads it."""
    figures = {"bits_per_byte": 1.0}
    return {
        "identity": {
            "name": "tiny",
            "description": description,
            "licences": {"weights": licence},
            "recipe": "a",
            "shards": "b",
        },
        "model": {
            "class": architecture,
            "parameters": 1200,
            "context_length": 64,
            "parametrization": {"type": "mup"},
        },
        "training": {"tokens": 500, "planned_tokens": planned},
        "data": {"sources": {source: {"documents": 3, "licence": licence}}},
        "evaluations": [{"title": source, "figures": {"sources": {source: figures}} | figures}],
        "checkpoints": [],
        "reproduction": {"verify": ["feldspar release . --verify"]},
        "openness": {"level": "0 of 4 pillars complete", "pillars": {}},
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A plain text, with 5 %.", "A plain text, with 5 %."),
        ("two\nlines\r\n\n# title", r"two lines \# title"),
        ("a | b", r"a \| b"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("[free](http://x)", r"\[free\](http://x)"),
        ("```", r"\`\`\`"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("---", r"\---"),
        ("&amp;", r"\&amp;"),
        ("bell\x07\x1b[31m red", r"bell \[31m red"),
        ("a\u202eb\u200b", "ab"),
        ("a\u2028b", "a b"),
        ("\ud800", ""),
        ("", ""),
    ],
)
def test_foreign_text_is_no_markup(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_description_licence_and_source_are_escaped() -> None:
    bad = "x\n\n# Head | <img src=y>"
    lines = model_card(record(bad, bad, bad)).splitlines()
    assert not any("<img" in line.replace(r"\<", "") for line in lines[5:])
    assert [line for line in lines if line.startswith("# ")] == ["# tiny"]
    rows = [line for line in lines if "Head" in line and line.startswith("|")]
    assert [row.replace(r"\|", "").count("|") for row in rows] == [3, 6, 5]
    (licence,) = [line for line in lines if line.startswith("license:")]
    assert licence == r'license: "x\n\n# Head | <img src=y>"'


def test_an_unfinished_run_is_named() -> None:
    assert "| trained on | 500 tokens, as planned |" in model_card(record())
    card = model_card(record(planned=2000))
    assert "500 of 2,000 planned tokens (25.0%): **the run is unfinished**" in card
    assert "planned is not known" in model_card(record(planned=None))


def test_only_a_class_of_ours_needs_trust() -> None:
    assert "trust_remote_code" not in model_card(record())
    card = model_card(record(architecture="FeldsparForCausalLM"))
    assert card.count("trust_remote_code=True") == 3 and "read it first" in card


def test_results_are_what_was_recorded() -> None:
    figures = {"words": {"acc": 0.25, "acc_stderr": 0.125, "alias": "w", "n": 3}}
    assert result_rows(figures) == [("words", "acc", "0.2500", "0.1250")]
    assert result_rows({"pairs": 3}) == []


def test_tasks_have_a_mean_and_guessing_is_no_result() -> None:
    words = {"acc": 0.25, "acc_stderr": 0.03, "bits": 2.0, "chance": 0.25, "items": 400}
    pairs = {"acc": 0.75, "acc_stderr": 0.04, "chance": 0.5, "items": 100}
    assert result_rows({"words": words, "pairs": pairs}) == [
        ("words", "acc (chance 0.25)", "0.2500", "0.0300"),
        ("words", "bits", "2.0000", ""),
        ("pairs", "acc (chance 0.50)", "0.7500", "0.0400"),
        ("mean of 2 tasks", "acc", "0.5000", "0.0250"),
    ]
    without = {"a": words, "b": {"acc": 0.5, "items": 3}}
    assert result_rows(without)[-1] == ("mean of 2 tasks", "acc", "0.3750", "")


@pytest.mark.parametrize(
    "figures",
    [
        {"mmlu": {"acc": 0.5, "items": None}, "mmlu_law": {"acc": 0.5, "items": 10}},
        {"by_likelihood": {"accuracy": 0.5}, "by_generation": {"accuracy": 0.25}},
        {"words": {"acc": 0.25, "items": 3}},
    ],
)
def test_what_is_no_list_of_tasks_has_no_mean(figures: dict[str, Any]) -> None:
    assert not any("mean" in row[0] for row in result_rows(figures))
