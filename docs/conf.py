"""How `make docs` builds the manual: Sphinx reads the Markdown pages, without a network."""

import sys
from pathlib import Path

from isoflop.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - it lies beside this file

generate.write(HERE / "generated")

project = "Isoflop"
author = "the Isoflop authors"
copyright = "the Isoflop authors, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Isoflop {__version__}"
