"""The card shows foreign text as it is, and says what it has to."""

from dataclasses import replace

import pytest

from feldspar.release.card import ReleaseFacts, model_card, plain_text

FACTS = ReleaseFacts(
    name="tiny",
    description="A model.",
    architecture="LlamaForCausalLM",
    parameters=1200,
    context_length=64,
    tokens=500,
    planned_tokens=500,
    parametrization="mup",
    licences={"web": "cc-by"},
    documents={"web": 3},
)


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
    facts = replace(
        FACTS, description=bad, licences={bad: bad}, documents={bad: 1}, held_out={bad: 1.0}
    )
    lines = model_card(facts).splitlines()
    assert not any("<img" in line.replace(r"\<", "") for line in lines)
    assert [line for line in lines if line.startswith("# ")] == ["# tiny"]
    rows = [line for line in lines if "Head" in line and line.startswith("|")]
    assert [row.replace(r"\|", "").count("|") for row in rows] == [4, 3]


def test_an_unfinished_run_is_named() -> None:
    assert "| trained on | 500 tokens, as planned |" in model_card(FACTS)
    card = model_card(replace(FACTS, planned_tokens=2000))
    assert "500 of 2,000 planned tokens (25.0%): **the run is unfinished**" in card
    assert "planned is not known" in model_card(replace(FACTS, planned_tokens=None))


def test_only_a_class_of_ours_needs_trust() -> None:
    assert "trust_remote_code" not in model_card(FACTS)
    card = model_card(replace(FACTS, architecture="FeldsparForCausalLM"))
    assert card.count("trust_remote_code=True") == 3 and "read it first" in card
