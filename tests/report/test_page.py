"""The page is one file: its structure, its policy, and what a reader without a script sees."""

import re
from html.parser import HTMLParser

from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Card, Fact, Section, Table, render_page, script_digest

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(refresh_seconds: int = 0) -> str:
    figure = line_figure(HOSTILE, [Series(HOSTILE, [1, 2], [3.0, 4.0])], HOSTILE, "y")
    table = Table(["", HOSTILE], [[HOSTILE, "1"], ["row", "words " * 20]])
    section = Section(HOSTILE, [HOSTILE], [table], [figure], [HOSTILE], folded=True)
    card = Card("finished", "good", HOSTILE, [Fact("Tokens", "5.1 M", HOSTILE)])
    return render_page(HOSTILE, HOSTILE, [section], card, refresh_seconds)


def test_text_is_escaped_and_nothing_comes_from_outside() -> None:
    outline = Outline(page())
    assert not outline.all("img") and len(outline.all("script")) == 2
    for _, attributes in outline.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href", "xlink:href") or (value or "").startswith("#")
    assert "url(" not in page().replace("url(#", "")


def test_the_policy_admits_the_script_of_the_page_alone() -> None:
    html = page()
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    [policy] = [
        each["content"] or ""
        for each in Outline(html).all("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert f"script-src '{script_digest(script)}'" in policy and "default-src 'none'" in policy


def test_the_structure_serves_screen_readers_and_phones() -> None:
    outline = Outline(page())
    assert [len(outline.all(tag)) for tag in ("h1", "main", "dl", "figure", "details")] == [1] * 5
    assert {each.get("scope") for each in outline.all("th")} == {"col", "row"}
    [region] = [each for each in outline.all("div") if each.get("class") == "scroll"]
    assert region["tabindex"] == "0" and region["role"] == "region" and region["aria-label"]
    assert all(each.get("role") == "img" for each in outline.all("svg"))
    assert "words" in [each.get("class") for each in outline.all("td")]
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert needed in page()
    assert not re.search(r"{{|{%", page())


def test_only_a_live_page_loads_itself_again() -> None:
    assert "data-refresh" not in page() and 'http-equiv="refresh"' not in page()
    live = Outline(page(5))
    assert live.all("body")[0]["data-refresh"] == "5"
    assert any(each.get("http-equiv") == "refresh" for each in live.all("meta"))
