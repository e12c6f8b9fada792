"""Reads documents from files, archives, object stores, data sets, checkouts and generators.

    for split in plan_inputs(source, seed):          # the same list on every machine
        for item in read_split(source, split): ...   # by any worker, in any order

Not for cleaning them: what is broken is reported as `Skipped`, what is readable goes on as it is.
"""

from __future__ import annotations

from isoflop.data.sources.kinds import expected_bytes, plan_inputs, read_source, read_split

__all__ = ["expected_bytes", "plan_inputs", "read_source", "read_split"]
