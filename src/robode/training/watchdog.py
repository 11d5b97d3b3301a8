"""Says when one optimiser step takes far longer than the others, as of an adaptive solver whose field got steep."""

from __future__ import annotations

import statistics
import time
from collections import deque

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch.optim import Optimizer

from robode.training.module import OfStep, Training, looks

TIMES = 100  # the median of the steps before
LEAST = 1.0  # seconds: shorter steps are nobody's worry, and a busy machine makes them now and then
ENOUGH, KEPT = 10, 101  # steps that a median needs, and is taken of


class Watchdog(Callback):
    """Warns of the first step that takes `TIMES` the median, forward and backward pass alone: no callback and no
    validation counts, and neither does the first step, in which libraries warm up. On a GPU steps are only queued
    between two looks at values (`looks`), so there the mean of those between is taken for one."""

    every = 0  # any end of a block will do (`training.captured`)

    def __init__(self, console: Console):
        self.console = console
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._first, self._said, self._began = True, False, 0.0
        self._since: list[float] = []  # the last look
        self._batch = 0

    def on_train_batch_start(self, trainer: Trainer, module: Training, batch: OfStep, batch_idx: int) -> None:  # type: ignore[override]
        """Looks at the clock."""
        self._batch, self._began = batch_idx, time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, module: Training, optimizer: Optimizer) -> None:  # type: ignore[override]
        """Warns, once, where a step takes many times as long as the others."""
        self._since.append(time.perf_counter() - self._began)
        if not looks(trainer, self._batch):
            return
        seconds, self._since = sum(self._since) / len(self._since), []
        if self._first:
            self._first = False
            return
        if seconds > LEAST and len(self._seconds) >= ENOUGH and not self._said:
            times = seconds / statistics.median(self._seconds)
            if times >= TIMES:
                self._said = True
                self._warn(module, seconds, times)
        self._seconds.append(seconds)

    @rank_zero_only
    def _warn(self, module: Training, seconds: float, times: float) -> None:
        text = (
            f"{module.place} took {seconds:.1f} s, {times:.0f} times the median: its field has become steep or stiff "
            "(then try a smaller lr, step or horizon), or the machine was busy"
        )
        if module.run.warn(text):
            self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
