"""Pages of the repository become pages of the site: links are kept whole, whatever moves."""

from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar_site.navigation import beginning, children
from feldspar_site.staging import Page, stage

TEXT = """# Page
[rules](../../RULES.md#style), [web](https://example.org/x.md), [here](#page), `[code](no.md)`
![curve](curve.svg) <img src="curve.svg"> [record](../../benchmarks/record.json)

```
[block](no.md)
```
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("docs/methods/curve.svg", "benchmarks/record.json"):
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "repository"


def test_links_follow_pages_and_files_to_their_places(repository: Path, tmp_path: Path) -> None:
    pages = {
        "methods/page.md": Page(TEXT, "docs/methods/page.md"),
        "contributing/rules.md": Page("# Rules\n[page](docs/methods/page.md)\n", "RULES.md"),
    }
    site = tmp_path / "site"
    stage(pages, repository, site)
    expected = TEXT.replace("../../RULES.md", "../contributing/rules.md")
    expected = expected.replace("../../benchmarks/", "../files/benchmarks/")
    assert (site / "methods/page.md").read_text(encoding="utf-8") == expected
    rules = (site / "contributing/rules.md").read_text(encoding="utf-8")
    assert rules == "# Rules\n[page](../methods/page.md)\n"
    assert (site / "methods/curve.svg").read_text(encoding="utf-8") == "docs/methods/curve.svg"
    assert (site / "files/benchmarks/record.json").is_file()

    before = (site / "contributing/rules.md").stat().st_mtime_ns
    stage({"contributing/rules.md": Page("# Rules\n", "RULES.md")}, repository, site)
    assert [path.name for path in site.rglob("*") if path.is_file()] == ["rules.md"]
    changed = (site / "contributing/rules.md").stat().st_mtime_ns
    stage({"contributing/rules.md": Page("# Rules\n", "RULES.md")}, repository, site)
    assert (site / "contributing/rules.md").stat().st_mtime_ns == changed != before


def test_a_link_to_no_file_is_refused_with_its_page(repository: Path, tmp_path: Path) -> None:
    page = Page("# Page\n[gone](gone.md)\n", "docs/page.md")
    with pytest.raises(UserError, match=r"docs/page\.md links to gone\.md"):
        stage({"page.md": page}, repository, tmp_path / "site")
    (repository / "docs/gone.md").write_text("# Gone\n", encoding="utf-8")
    with pytest.raises(UserError, match="is no page of the site"):
        stage({"page.md": page}, repository, tmp_path / "site")


def test_a_hub_leads_to_the_pages_that_its_items_begin_with() -> None:
    text = """# Hub
See [other](other.md).

* [**First**](first.md): with [second](second.md)
* [`second`](../SECOND.md)
* [record](record.json)
"""
    places = {"docs/first.md": "first.md", "SECOND.md": "moved/second.md"}
    entries = children(Page(text, "docs/hub.md"), places)
    assert entries == ["First </first>", "second </moved/second>"]


def test_a_card_of_a_tutorial_says_how_it_begins() -> None:
    text = (
        "# Train\n\nAfter this page you have a model\nof 0.7 M parameters: measured. 3 minutes.\n"
    )
    assert beginning(text) == ("Train", "A model of 0.7 M parameters.")
