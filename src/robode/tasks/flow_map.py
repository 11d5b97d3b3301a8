"""Where a state is after some time: a regression that knows the time, and what the exact map keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robode.tasks.regression import Regression


@dataclass(frozen=True)
class FlowMap(Regression):
    """dt: from a state to its target; of data whose samples say their own time the longest. invariants: the names of
    what does not change along solutions; the data's system (`robode.data.dynamics.Dynamics`) computes them."""

    dt: float = 1.0
    invariants: tuple[str, ...] = ()

    name: ClassVar[str] = "flow_map"
