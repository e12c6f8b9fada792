"""Isoflop builds language models whose outcome is known before they are paid for."""

from isoflop.version import __version__

__all__ = ["__version__"]
