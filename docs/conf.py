"""Configuration of Sphinx for the documentation site; ``python -m feldspar_site`` builds it."""

from feldspar import __version__

project = "feldspar"
author = "the authors of feldspar"
project_copyright = "the authors of feldspar, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["files/**"]
language = "en"
highlight_language = "text"  # blocks without a language are commands, or what they print
smartquotes = False  # it would join the two hyphens of an option

# Anchors as GitHub makes them, so that a link to a heading works in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "deflist", "html_image"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

nitpicky = True
# Types of other packages: their documentation is not read, because a build needs no network.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "feldspar"
html_static_path = ["assets"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
templates_path: list[str] = []
pygments_style = "friendly"
pygments_dark_style = "github-dark"

copybutton_exclude = ".linenos, .gp, .go"
linkcheck_timeout = 20
linkcheck_anchors = False
