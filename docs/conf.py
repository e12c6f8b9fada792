"""How `make docs` builds the manual: Sphinx reads the Markdown pages, without a network."""

from isoflop.version import __version__

project = "Isoflop"
author = "the Isoflop authors"
copyright = "the Isoflop authors, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Isoflop {__version__}"
