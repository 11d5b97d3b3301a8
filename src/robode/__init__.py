"""Contractive Hamiltonian and other neural ODEs as image and point classifiers, with certificates.

The names of `robode.api` are here too. They are looked up when they are first used, because torch takes seconds to
import and most of the command line needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robode.api import (
        Attacked,
        Certified,
        CertifiedModule,
        Evaluated,
        Exported,
        Smoothed,
        Stabilised,
        Trained,
        attack,
        certify,
        certify_module,
        evaluate,
        export,
        load,
        logit_radii,
        plane_radii,
        results,
        smooth_module,
        stabilise,
        train,
    )
    from robode.errors import BadInput, JobFailed

__version__ = "0.1.0"

__all__ = [
    "Attacked", "BadInput", "Certified", "CertifiedModule", "Evaluated", "Exported", "JobFailed", "Smoothed",
    "Stabilised", "Trained", "attack", "certify", "certify_module", "evaluate", "export", "load", "logit_radii",
    "plane_radii", "results", "smooth_module", "stabilise", "train",
]  # fmt: skip
_WITHOUT_TORCH = {"BadInput": "robode.errors", "JobFailed": "robode.errors"}


def __getattr__(name: str) -> object:
    """A name of `__all__`, imported now (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_WITHOUT_TORCH.get(name, "robode.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What tab completion offers, torch or not."""
    return sorted({*globals(), *__all__})
