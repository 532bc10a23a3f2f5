"""How Sphinx makes the site: `make docs`. Nothing in the pages depends on the theme."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import fastws

project = "fastws"
author = "The fastws authors"
project_copyright = "2026, The fastws authors"
release = version = fastws.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
    "_site",
]
exclude_patterns = []
nitpicky = True
# Internal types, which signatures name and applications get or give without looking into them.
nitpick_ignore = [
    ("py:class", f"fastws.{name}")
    for name in (
        "access.keys.Keys",
        "pusher.cache.Cache",
        "pusher.listener.Tell",
        "pusher.signing.Application",
        "v1.gate.Backend",
        "web.api.API",
    )
]
suppress_warnings = ["misc.highlighting_failure"]  # of templates, which are highlighted as far as they go
default_role = "py:obj"

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_class_signature = "separated"

html_theme = "furo"
html_title = f"fastws {release}"
html_copy_source = True
html_show_sphinx = False
