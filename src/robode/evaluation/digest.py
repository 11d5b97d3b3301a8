"""Which evaluation a row of results.csv belongs to: the perturbation and the protocol as built, and the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import EvaluationProtocol


def evaluation_digest(perturbation: Perturbation, protocol: EvaluationProtocol, data_digest: str) -> str:
    """8 hexadecimal digits of the SHA-256 of their classes and attributes, and of the data (`DataModule.digest`).

    The severities are left out: those that are measured later belong to the same evaluation. So are attributes
    whose name begins with an underscore (what an object merely remembers).
    """
    content = [_plain(perturbation, leave_out="severities"), _plain(protocol), data_digest]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: Any, leave_out: str = "") -> Any:
    """What of a value tells it from others, for JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    kind = value if isinstance(value, type) else type(value)
    kept = {} if kind is value else getattr(value, "__dict__", {})
    settings = {key: _plain(each) for key, each in kept.items() if key != leave_out and not key.startswith("_")}
    return {"class": kind.__qualname__, **settings}
