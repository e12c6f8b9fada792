"""Everything a table says of a form's parameters, in one place."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from isoflop.laws.identify import identify
from isoflop.laws.records import RunTable, select

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 6.4e7, 5), np.geomspace(1e8, 6.4e9, 5)))


def table(noise: float) -> RunTable:
    rng = np.random.default_rng(0)
    loss = 1.7 + 200 * N**-0.34 + 400 * D**-0.3
    return RunTable.from_arrays(N, D, loss * np.exp(noise * rng.standard_normal(N.size)))


def test_many_clean_runs_determine_every_parameter() -> None:
    found = identify(table(5e-4), "chinchilla", bootstrap=100)
    assert found.undetermined == ()
    planted = {"E": 1.7, "p": 0.34, "q": 0.3}
    for profile in found.profiles:
        assert profile.low < planted[profile.parameter] < profile.high
    assert found.basins.agreeing > found.basins.starts / 2
    assert found.params * found.tokens == pytest.approx(10 * N.max() * D.max())
    assert found.verdict == "supported"


def test_a_limit_that_was_not_found_is_null_in_the_document() -> None:
    found = identify(select(table(1e-2), np.arange(0, 25, 2)), "chinchilla", bootstrap=100)
    first, *rest = found.profiles
    open_ended = replace(found, profiles=(replace(first, low=0.0, high=np.inf), *rest))
    assert open_ended.undetermined == ("E",)
    document = json.loads(json.dumps(open_ended.to_dict(), allow_nan=False))
    floor = document["profiles"][0]
    assert (floor["low"], floor["high"], floor["determined"]) == (None, None, False)
    assert set(document["basins"]) == {"starts", "agreeing"}
