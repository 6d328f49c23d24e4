"""How Sphinx makes the site of these pages: `make docs`."""

import re
from importlib.metadata import version as version_of

import latex2mathml.converter
from docutils.nodes import SkipNode
from sphinx.ext.autosummary import Autosummary

project = "cylstm"
copyright = "the cylstm maintainers"
release = version = version_of("cylstm")
root_doc = "index"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache", "ref.footnote"]  # docstrings list what they rest on

default_role = "py:obj"  # of docstrings, as numpydoc has it
autodoc_typehints = "none"  # docstrings tell more
autosummary_generate = True
autosummary_imported_members = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "cylstm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"  # which browsers draw without any script
html_context = {"default_mode": "light"}
html_theme_options = {
    "logo": {"text": "cylstm"},
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
html_sidebars = {"index": [], "tutorial": [], "changelog": []}


class Summaries(Autosummary):
    """Tables of names whose first sentences refer to nothing that is on another page."""

    def get_items(self, names):
        return [
            (name, signature, re.sub(r" \[\d+\]_", "", summary), real)
            for name, signature, summary, real in super().get_items(names)
        ]


def setup(app):
    app.add_directive("autosummary", Summaries, override=True)
    app.connect("autodoc-process-docstring", keep_initials)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))


def keep_initials(app, what, name, obj, options, lines):
    """A reference may begin with an initial, which would be taken for the first of a list."""
    lines[:] = [re.sub(r"^(\s*\.\. \[\d+\] )([A-Z]\.)", r"\1\\\2", line) for line in lines]


def formula(translator, node, display):
    """Write a formula as MathML; one of several lines is aligned."""
    text = node.astext()
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    translator.body.append(latex2mathml.converter.convert(text, display=display))


def visit_inline(translator, node):
    formula(translator, node, "inline")
    raise SkipNode


def visit_display(translator, node):
    translator.body.append('<div class="formula">')
    formula(translator, node, "block")
    translator.body.append("</div>\n")
    raise SkipNode
