"""The training log: one row per step and name, only ever appended, so that a resumed run continues it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from robode.runs.table import METRICS

SECONDS_BETWEEN_WRITES = 5.0


class MetricsLog(Logger):
    """metrics.csv in `save_dir`, columns METRICS.columns. Rows wait in memory for at most five seconds.

    A replayed step (resumed after an interruption in mid-epoch) is appended again: readers take the last row
    of a (step, name). Raises `JobFailed` if the file cannot be written.
    """

    def __init__(self, save_dir: str):
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._waiting: list[dict[str, Any]] = []
        self._written = time.monotonic()

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """metrics: name -> value, and "epoch", which counts from 0. step: optimiser steps taken."""
        epoch = metrics.get("epoch", 0)
        self._waiting += [
            {"epoch": int(epoch), "step": step, "name": name, "value": value}
            for name, value in metrics.items()
            if name != "epoch"
        ]
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        rows, self._waiting = self._waiting, []
        self._written = time.monotonic()
        METRICS.append(self.path, rows)

    def finalize(self, status: str) -> None:
        self.save()
