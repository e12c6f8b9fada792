"""Work cut into tasks that run anywhere and once: *map* over pieces, *group* by key.

Not for what a task does: the engine knows nothing of text or tokens.
"""

from isoflop.core.engine.engine import Engine, Piece
from isoflop.core.engine.folder import link_file, work_folder, work_path
from isoflop.core.engine.placement import Placement, open_placement
from isoflop.core.engine.task import Output, Work

__all__ = [
    "Engine",
    "Output",
    "Piece",
    "Placement",
    "Work",
    "link_file",
    "open_placement",
    "work_folder",
    "work_path",
]
