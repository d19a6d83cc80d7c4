"""Sphinx: ``make docs`` writes docs/_build/html; the reference comes from the docstrings."""

from cpsam import __version__

project = "cpsam"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "results/*/report.md"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_custom_sections = ["Shape", "Source"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# Fields of several classes have one name, and a docstring that names one is no link.
suppress_warnings = ["ref.python"]
