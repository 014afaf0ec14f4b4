"""Build the site: ``python -m feldspar_site [html | linkcheck]``; every warning is an error."""

import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main

from feldspar.core.errors import UserError
from feldspar_site.pages import ROOT, all_pages
from feldspar_site.staging import stage

BUILD = ROOT / "build"
SITE = BUILD / "site"


def build(builder: str, to: Path) -> int:
    """Build the site in the folder ``to``, and return the exit code of Sphinx."""
    source, known = BUILD / "site-source", BUILD / "site-doctrees"
    stage(all_pages(), ROOT, source)
    strict = ["--fail-on-warning", "--keep-going", "--quiet"]
    places = ["--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(known)]
    code = main([*strict, *places, "--builder", builder, str(source), str(to)])
    if code:
        # Sphinx reads unchanged pages only once, so the next build would not warn of them again.
        shutil.rmtree(known, ignore_errors=True)
    return code


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "html"
    try:
        code = build(chosen, SITE if chosen == "html" else BUILD / chosen)
    except UserError as error:
        sys.exit(str(error))
    if code == 0 and chosen == "html":
        print(f"open {(SITE / 'index.html').relative_to(ROOT)} in a browser")
    sys.exit(code)
