"""Several seeds of one configuration in one process: each run folder is left as a separate training leaves it."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console

from robode import environment
from robode.errors import JobFailed
from robode.runs import Run
from robode.training.assembly import Parts, assemble
from robode.training.batched_checks import check_batch
from robode.training.batched_loop import Batch
from robode.training.batched_seat import Seat, take_seat


def train_batched(
    configs: Sequence[DictConfig], runs: Sequence[Run], console: Console | None = None, parts: Parts | None = None
) -> list[JobFailed | None]:
    """Train the networks of configurations that differ in their seed alone, together, to their last epoch.

    Weights, batches, optimiser and gamma of each seed are those of a separate training up to rounding. A run that has
    a last.ckpt goes on from it, whoever wrote it; runs that stand at different epochs are brought to the same one
    first. Checkpoints are written every five seconds and at the end.

    parts: `assemble(configs[0])`, if that has been done.

    Returns:
        For each run None, or why it failed; such a run is marked failed and the others go on.

    Raises:
        BadInput: see `check_batch` and `assemble`; before anything is written.
        JobFailed: the disk refuses.
    """
    check_batch(configs)
    console = console or Console()
    parts = parts or assemble(configs[0], console, environment.threads_of(runs[0]))
    device = parts.trainer.strategy.root_device
    seats = [take_seat(config, run, parts.data.facts, device) for config, run in zip(configs, runs, strict=True)]
    epochs = int(parts.trainer.max_epochs or 0)
    while group := _furthest_behind(seats, epochs):
        ahead = [seat.epochs for seat in seats if seat.failure is None and seat.epochs > group[0].epochs]
        Batch(group, parts, console).train(min([epochs, *ahead]))
    return [seat.failure for seat in seats]


def _furthest_behind(seats: Sequence[Seat], epochs: int) -> list[Seat]:
    """Those that have done the fewest epochs, if there are any left to do."""
    active = [seat for seat in seats if seat.failure is None and seat.epochs < epochs]
    fewest = min((seat.epochs for seat in active), default=0)
    return [seat for seat in active if seat.epochs == fewest]
