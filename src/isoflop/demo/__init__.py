"""The whole flow on this machine, from text to a served model that answers; the twin of
`isoflop demo`.

Holds no stage of its own: it writes the recipes, calls the functions behind the public commands,
and keeps the promises in a ledger.
"""

from isoflop.demo.flow import DemoResult, demo

__all__ = ["DemoResult", "demo"]
