"""Build the site: ``python -m feldspar_site [html | linkcheck]``; every warning is an error."""

import sys
from pathlib import Path

from sphinx.cmd.build import main

from feldspar_site.pages import ROOT, all_pages
from feldspar_site.staging import stage

BUILD = ROOT / "build"
SITE = BUILD / "site"


def build(builder: str, to: Path = SITE) -> int:
    """Build the site in the folder ``to``, and return the exit code of Sphinx."""
    source = BUILD / "site-source"
    stage(all_pages(), ROOT, source)
    strict = ["--fail-on-warning", "--keep-going", "--quiet"]
    places = ["--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(BUILD / "site-doctrees")]
    return main([*strict, *places, "--builder", builder, str(source), str(to)])


if __name__ == "__main__":
    builder = sys.argv[1] if len(sys.argv) > 1 else "html"
    code = build(builder, SITE if builder == "html" else BUILD / builder)
    if code == 0 and builder == "html":
        print(f"open {(SITE / 'index.html').relative_to(ROOT)} in a browser")
    sys.exit(code)
