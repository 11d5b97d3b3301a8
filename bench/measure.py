"""How the bench measures: in turns, medians, ratios; and on what kind of machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "numpy", "scikit-image", "hydra-core")


@dataclass(frozen=True)
class Row:
    """One comparison. ours, other: seconds per `unit`, one entry a turn; pair k was measured back to back.

    Without `other` the row is a plain duration. `target` is what the project set itself.
    """

    what: str
    unit: str
    ours: Sequence[float]
    other: Sequence[float] = ()
    target: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """other / ours of each pair: how many times faster robode was in that turn."""
        return [b / a for a, b in zip(self.ours, self.other, strict=True)] if self.other else []

    def summary(self) -> dict[str, Any]:
        """Everything for the JSON file: raw seconds, medians, and the spread of the ratios."""
        facts = asdict(self) | {"ours_median": statistics.median(self.ours), "turns": len(self.ours)}
        if self.other:
            ratios = self.ratios
            facts |= {
                "other_median": statistics.median(self.other),
                "ratio": statistics.median(ratios),
                "ratio_lowest": min(ratios),
                "ratio_highest": max(ratios),
            }
        return facts


def seconds(action: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(ours: Callable[[], Any], other: Callable[[], Any], turns: int) -> tuple[list[float], list[float]]:
    """Seconds of both, back to back; who goes first alternates, so that drift of the machine cancels."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for who in order:
            times[who].append(seconds((ours, other)[who]))
    return times


def machine() -> dict[str, Any]:
    """What the numbers depend on. No host name, no user, no path."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The processor's model name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
