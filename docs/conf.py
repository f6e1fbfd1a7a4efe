"""How the book is built: both languages from one configuration, offline, its notebooks executed."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "relprop"
author = "The relprop authors"
copyright = author
language = "en"  # sphinx-build -D language=ko for the other one

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "mathml",
    "counterpart",
    "reference",
    "sources",
    "streams",
    "wording",
]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["**/.ipynb_checkpoints"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist", "amsmath"]
myst_heading_anchors = 4
myst_update_mathjax = False
suppress_warnings = ["mystnb.unknown_mime_type"]

nb_execution_mode = "cache"  # kept beside the built pages: a fresh build runs every cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_execution_in_temp = True  # what a cell saves does not end up beside the text
nb_merge_streams = True
nb_output_stderr = "warn"  # a stray warning of a cell is one of the build
nb_render_markdown_format = "myst"
# Notebooks of widgets would fetch these from another host; there are none here.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "furo"
html_title = "relprop"
html_static_path = ["_static"]
html_css_files = ["book.css"]
templates_path = ["_templates"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#a3392b",
        "color-brand-content": "#a3392b",
        "color-brand-visited": "#7d4038",
        "color-sidebar-link-text--top-level": "var(--color-foreground-primary)",
    },
    "dark_css_variables": {
        "color-brand-primary": "#f0998a",
        "color-brand-content": "#f0998a",
        "color-brand-visited": "#d9a59b",
        "color-sidebar-link-text--top-level": "var(--color-foreground-primary)",
    },
}
pygments_style = "friendly"
pygments_dark_style = "nord-darker"
