"""What a batch writes down for each of its seeds: the same rows and files as a separate training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robode.training.batched_forward import Found, InTurns, SideBySide
from robode.training.batched_seat import Clock, Seat
from robode.training.callbacks import BSMLogger, bsm_columns
from robode.training.checkpoints import WholeFiles
from robode.training.recorder import flow_values

SECONDS_BETWEEN_CHECKPOINTS = 5.0  # S small files each with an fsync: in every epoch they would take most of the time


class Tallies:
    """`Tally` for S networks: sums over samples, (S,) each."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, found: Found, n: int) -> None:
        """n: samples of the batch that each network has seen."""
        terms = found.terms if len(found.terms) > 1 else {}
        values = {"loss": found.loss * n, **{name: term * n for name, term in terms.items()}, "accuracy": found.correct}
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += n

    def means(self) -> list[dict[str, float]]:
        """Means of each network since the last call; nothing where nothing was added."""
        if not self.sums:
            return []
        table = torch.stack([value.double() for value in self.sums.values()], dim=1) / self.count
        names, self.sums, self.count = list(self.sums), {}, 0
        return [dict(zip(names, row, strict=True)) for row in table.tolist()]

    def keep(self, chosen: list[int]) -> None:
        self.sums = {name: value[chosen] for name, value in self.sums.items()}


def log(
    seats: Sequence[Seat],
    clock: Clock,
    values: Sequence[Mapping[str, float]],
    certificates: Sequence[Mapping[str, float] | None],
) -> None:
    """A row for each seed: these values and what its flow says about itself (see `Recorder`)."""
    for seat, own, table in zip(seats, values, certificates, strict=True):
        row = {**own, **flow_values(seat.network.flow, table), "epoch": clock.current_epoch}
        for logger in seat.loggers:
            logger.log_metrics(row, clock.global_step)


def log_sensitivities(seats: Sequence[Seat], clock: Clock, forward: InTurns | SideBySide) -> None:
    """What `BSMLogger` does before a step, in one go for all seeds where that is possible."""
    for i, callback in enumerate(seats[0].callbacks):
        if not isinstance(callback, BSMLogger) or clock.global_step % callback.every:
            continue
        probe = callback.probe.to(next(seats[0].network.parameters()).dtype)
        found = forward.bsm(probe) if isinstance(forward, SideBySide) else None
        layers = None if found is None else bsm_columns(found).transpose(0, 1).tolist()
        for s, seat in enumerate(seats):
            if layers is None:
                seat.callbacks[i].on_train_batch_start(clock, seat)
            else:
                seat.callbacks[i].add(clock.global_step, layers[s])


class Writer:
    """Writes checkpoints when five seconds have passed, and whenever it is told to.

    best.ckpt goes before last.ckpt: a batch that is killed between the two finds the same best epoch again.
    """

    def __init__(self) -> None:
        self.files, self.written = WholeFiles(), time.monotonic()

    def epoch_ended(self, seats: Sequence[Seat]) -> None:
        """Every seat has a `newest` snapshot, for some it is `better`."""
        if time.monotonic() - self.written > SECONDS_BETWEEN_CHECKPOINTS:
            self.write(seats)

    def write(self, seats: Sequence[Seat]) -> None:
        """Everything since the last call onto the disk. Raises `JobFailed`."""
        for seat in seats:
            for callback in seat.callbacks:
                if isinstance(callback, BSMLogger):
                    callback.write(seat.run)
            for logger in seat.loggers:
                logger.save()
            if seat.better is not None:
                self.files.save_checkpoint(seat.better.content(seat), seat.run.best)
                seat.better = None
            if seat.newest is not None:
                seat.content, seat.newest = seat.newest.content(seat), None
                self.files.save_checkpoint(seat.content, seat.run.last)
                seat.run.update(epoch=seat.epochs, step=seat.content["global_step"])
        self.written = time.monotonic()


def epoch_line(
    clock: Clock, means: Sequence[Mapping[str, float]], held_out: Sequence[Mapping[str, float]], seconds: float
) -> str:
    """The line that stays on the console for an epoch: means over the seeds."""

    def mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    total = clock.max_epochs
    number = f"{clock.current_epoch + 1:>{len(str(total))}}/{total}"
    validation = f"  validation {100 * mean(held_out, 'validation/accuracy'):.2f} %" if any(held_out) else ""
    return (
        f"epoch {number}  {len(means)} seeds  loss {mean(means, 'loss'):.4g}"
        f"  train {100 * mean(means, 'accuracy'):.2f} %{validation}  {seconds:.1f} s"
    )
