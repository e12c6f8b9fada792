"""Opening a law of any form: a `law.json`, or a law of the literature by name; not for fitting.

The module of a form is imported when a law of it is opened, and none needs more than numpy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws import predict
from isoflop.laws.forms import FORMS

if TYPE_CHECKING:
    from isoflop.laws.curve import CurveLaw
    from isoflop.laws.experts import ExpertLaw
    from isoflop.laws.frontier import FrontierLaw
    from isoflop.laws.hyperparameters import HyperparameterLaw
    from isoflop.laws.isoflop_law import IsoflopLaw
    from isoflop.laws.mixture import MixtureLaw
    from isoflop.laws.power import PowerLaw
    from isoflop.laws.precision import PrecisionLaw, QuantisationLaw
    from isoflop.laws.predict import Law
    from isoflop.laws.published import PublishedLaw
    from isoflop.laws.repetition import DataLaw
    from isoflop.laws.tasks import TaskLaw

    FamilyLaw: TypeAlias = (
        PowerLaw
        | DataLaw
        | CurveLaw
        | HyperparameterLaw
        | FrontierLaw
        | IsoflopLaw
        | MixtureLaw
        | TaskLaw
        | ExpertLaw
        | PrecisionLaw
        | QuantisationLaw
    )
    AnyLaw: TypeAlias = Law | FamilyLaw

HOMES = {
    "kaplan-n": ("power", "PowerLaw"),
    "kaplan-d": ("power", "PowerLaw"),
    "kaplan-c": ("power", "PowerLaw"),
    "frontier": ("frontier", "FrontierLaw"),
    "isoflop": ("isoflop_law", "IsoflopLaw"),
    "data-constrained": ("repetition", "DataLaw"),
    "curve": ("curve", "CurveLaw"),
    "hyperparameters": ("hyperparameters", "HyperparameterLaw"),
    "mixture": ("mixture", "MixtureLaw"),
    "loss-to-task": ("tasks", "TaskLaw"),
    "experts": ("experts", "ExpertLaw"),
    "precision": ("precision", "PrecisionLaw"),
    "quantisation": ("precision", "QuantisationLaw"),
}
"""Form → the module and class of its laws."""
SURFACES = (predict.AUTO, *FORMS)
"""Forms whose laws are `predict.Law`."""

OTHERS: dict[str, tuple[str, str, str]] = {
    "ludziejewski": ("experts", "published_experts", "experts"),
    "kumar": ("precision", "published_precision", "precision"),
    "kumar-quantisation": ("precision", "published_quantisation", "quantisation"),
}
"""Published laws of other forms than `published.PublishedLaw`: name → module, function, form."""


def load_law(path: Path | str) -> AnyLaw:
    """Read a `law.json` of any form.

    Raises:
        ArtifactError: The file is missing, damaged, or not a law that this version reads.
    """
    document = read_json(Path(path))
    form = document.get("form") if isinstance(document, dict) else None
    if not isinstance(form, str) or form in SURFACES:
        return predict.load_law(path)
    if form not in HOMES:
        raise ArtifactError(
            f"this version knows no law of the form {form!r}",
            where=str(path),
            fix=f"It knows {', '.join((*SURFACES, *HOMES))}",
        )
    module, name = HOMES[form]
    kind = getattr(importlib.import_module(f"isoflop.laws.{module}"), name)
    try:
        law: FamilyLaw = kind.from_document(document)
    except ArtifactError as error:
        raise ArtifactError(error.what, where=str(path), fix=error.fix) from None
    predict.check_hash(document, path)  # last: what is missing is told by its name
    return law


def find_law(given: Path | str) -> AnyLaw | PublishedLaw:
    """A law by its file or, where there is no such file, by its name in the literature.

    Raises:
        ArtifactError: The file is damaged or no law.
        TableError: There is neither a file nor a published law of that name.
    """
    path = Path(given)
    if path.suffix == ".json" or path.exists():
        return load_law(path)
    name = str(given).lower()
    if name in OTHERS:
        module, function, _ = OTHERS[name]
        make: Callable[[], Any] = getattr(
            importlib.import_module(f"isoflop.laws.{module}"), function
        )
        found: FamilyLaw = make()
        return found
    from isoflop.laws.published import published_law

    try:
        return published_law(name)
    except TableError as error:
        raise TableError(
            f"there is neither a file nor a published law {str(given)!r}", fix=error.fix
        ) from None
