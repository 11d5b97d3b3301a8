"""The training loop of a batch of seeds: what Lightning's loop and robode's callbacks do for one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from robode.data.batches import in_units
from robode.errors import JobFailed
from robode.ode.flow import Constrained, Flow, bounds_table
from robode.training.assembly import Parts
from robode.training.batched_forward import Found, SideBySide, choose
from robode.training.batched_records import Tallies, Writer, epoch_line, log, log_sensitivities
from robode.training.batched_seat import Clock, Seat, loops_after, snapshot
from robode.training.batched_weights import Weights
from robode.training.callbacks import BSMLogger, constrained
from robode.training.guard import blown_up
from robode.training.module import LOOK_EVERY
from robode.training.progress import SECONDS_BETWEEN_UPDATES, bar
from robode.training.recorder import Recorder


class Batch:
    """Seats that stand at the same epoch, and their common weights."""

    def __init__(self, seats: Sequence[Seat], parts: Parts, console: Console):
        self.seats, self.parts, self.console, self.data = list(seats), parts, console, parts.data
        reduced = seats[0].config["trainer"]["fast_dev_run"]
        self.samples, self.labels = self.data.split("train")
        self.batches = 1 if reduced else len(self.data.train_dataloader())
        self.held_out: list[Any] = list(self.data.val_dataloader())[: 1 if reduced else None]
        self.every = Recorder().every
        self.writer, self.window, self.whole_epoch = Writer(), Tallies(), Tallies()
        self.clock = Clock(self.data, int(parts.trainer.max_epochs or 0))
        self.weights = Weights([seat.network for seat in seats], seats[0].config["optimizer"])
        contents = [seat.content for seat in seats if seat.content is not None]
        if contents:
            schedulers = [next(iter(content["lr_schedulers"]), None) for content in contents]
            self.weights.load([content["optimizer_states"][0] for content in contents], schedulers)
            self.clock.current_epoch, self.clock.global_step = seats[0].epochs, contents[0]["global_step"]
        self.order = torch.empty(len(seats), 0, dtype=torch.int64)
        self._arrange()

    def _arrange(self) -> None:
        """At the start, and after somebody has left."""
        self.forward = choose(self.seats, self.weights.stacked, min(self.data.batch_size, len(self.labels)))
        self.constrained = [constrained(seat.network) for seat in self.seats]
        self.only_flows = all(isinstance(module, Flow) for modules in self.constrained for module in modules)

    def train(self, until: int) -> None:
        """Epochs up to number `until`. Raises `JobFailed` if the disk refuses."""
        self._call("on_fit_start")
        if getattr(self.seats[0].network.flow, "project_at_start", True):
            self._project()
        if self.clock.global_step == 0:
            log(self.seats, self.clock, [{}] * len(self.seats), self._certificates())
        with ExitStack() as stack:
            stack.callback(lambda: self.writer.write(self.seats))  # interrupted: what the last whole epoch left
            shown = stack.enter_context(bar(self.console))
            task = shown.add_task("", total=self.batches, note="")
            for epoch in range(self.clock.current_epoch, until):
                if not self.seats:
                    return
                self.clock.current_epoch = epoch
                shown.reset(task, total=self.batches, description=f"epoch {epoch + 1}/{self.clock.max_epochs}")
                self._epoch(lambda done: shown.update(task, completed=done))
        if until == self.clock.max_epochs:
            self._call("on_train_end")
            for logger in [each for seat in self.seats for each in seat.loggers]:
                logger.finalize("success")

    def _epoch(self, progress: Any) -> None:
        began = shown = time.perf_counter()
        for seat in self.seats:
            seat.order.set_epoch(self.clock.current_epoch)
        self.order = torch.stack([seat.order.permutation(len(self.labels)) for seat in self.seats])
        for k in range(self.batches):
            self._step(k)
            if not self.seats:
                return
            if time.perf_counter() - shown > SECONDS_BETWEEN_UPDATES:
                shown = time.perf_counter()
                progress(k + 1)
        self._end_of_epoch(began)

    def _step(self, k: int) -> None:
        """k: number of the batch in its epoch."""
        log_sensitivities(self.seats, self.clock, self.forward)
        x, labels = self._gathered(k)
        found = self.forward.backward(x, labels, self.weights.stacked)
        if found.loss.device.type == "cpu" or k % LOOK_EVERY == 0 or k + 1 == self.batches:
            found = self._without_the_diverged(found, x)
            if not self.seats:
                return
        for tally in (self.window, self.whole_epoch):
            tally.add(found, labels.shape[1])
        self.weights.step(k + 1 == self.batches)
        self.clock.global_step += 1
        self._project()
        if self.clock.global_step % self.every == 0:
            log(self.seats, self.clock, self._values(), [None] * len(self.seats))

    def _gathered(self, k: int) -> tuple[Tensor, Tensor]:
        """Every seat's own batch: x (S, B, *shape) in data units and labels (S, B)."""
        rows = self.order[:, k * self.data.batch_size : (k + 1) * self.data.batch_size]
        x = in_units(self.samples.index_select(0, rows.flatten())).view(*rows.shape, *self.samples.shape[1:])
        labels = self.labels.index_select(0, rows.flatten()).view(rows.shape)
        return self._moved(x), labels.to(self.seats[0].device)

    def _moved(self, x: Tensor) -> Tensor:
        parameter = next(iter(self.weights.stacked.values()))
        return x.to(device=parameter.device, dtype=parameter.dtype)

    def _without_the_diverged(self, found: Found, x: Tensor) -> Found:
        step, epoch = self.clock.global_step, self.clock.current_epoch + 1
        failures = {
            s: blown_up(self.seats[s].network, x[s], loss, step=step, epoch=epoch, lr=self.weights.lr)
            for s, loss in enumerate(found.loss.tolist())
            if not math.isfinite(loss)
        }
        return found.keep(self._leave(failures)) if failures else found

    def _project(self) -> None:
        """Restore the constraints of every network (gamma); who cannot keep its own leaves."""
        if self.only_flows and isinstance(self.forward, SideBySide):
            found = self.forward.flow.project_()
        else:
            found = [_projected(each) for each in self.constrained]
        where = f"step {self.clock.global_step} (epoch {self.clock.current_epoch + 1})"
        failures = {s: JobFailed(f"{where}: {error}") for s, error in enumerate(found) if error is not None}
        if failures:
            self._leave(failures)

    def _leave(self, failures: Mapping[int, JobFailed]) -> list[int]:
        """Mark seeds failed and go on without them. Returns who stays."""
        leaving, staying = [self.seats[s] for s in failures], [s for s in range(len(self.seats)) if s not in failures]
        self.writer.write(leaving)
        for seat, error in zip(leaving, failures.values(), strict=True):
            seat.failure = error
            seat.run.update(status="failed", error=str(error))
            self.console.print(f"seed {seat.config['seed']} failed: {error}", style="red", highlight=False)
        self.seats = [self.seats[s] for s in staying]
        if self.seats:
            self.weights.keep(staying, [seat.network for seat in self.seats])
            self.order = self.order[staying]
            for tally in (self.window, self.whole_epoch):
                tally.keep(staying)
            self._arrange()
        return staying

    def _values(self) -> list[dict[str, float]]:
        """train/* since the last row, and the learning rate."""
        means = self.window.means() or [{}] * len(self.seats)
        return [{f"train/{name}": v for name, v in each.items()} | {"lr": self.weights.lr} for each in means]

    def _end_of_epoch(self, began: float) -> None:
        held_out, means = self._validate(), self.whole_epoch.means()
        values = [a | b for a, b in zip(self._values(), held_out, strict=True)]
        log(self.seats, self.clock, values, self._certificates())
        self._call("on_train_epoch_end", but=BSMLogger)  # its rows are written with the checkpoints
        scores = [each.get("validation/accuracy", -1.0) for each in held_out]
        better = [seat for seat, score in zip(self.seats, scores, strict=True) if score > seat.best]
        for seat, score in zip(self.seats, scores, strict=True):
            if seat in better:
                seat.best, seat.best_step = score, self.clock.global_step
        now = snapshot(self.seats, self.clock, self.weights, partial(self._loops, self.clock.current_epoch + 1))
        for seat in self.seats:
            seat.newest = now
        for seat in better:
            seat.better = now
        self.writer.epoch_ended(self.seats)
        self.console.print(epoch_line(self.clock, means, held_out, time.perf_counter() - began), highlight=False)

    def _loops(self, epochs: int) -> dict[str, Any]:
        moves = 0 if self.weights.scheduler is None else self.batches if self.weights.every_step else 1
        return loops_after(self.parts.trainer, epochs, self.batches, len(self.held_out), moves)

    def _certificates(self) -> list[dict[str, float]]:
        if isinstance(self.forward, SideBySide):
            return [bounds_table(steps) for steps in self.forward.flow.step_bounds()]
        return [seat.network.flow.certificate_table() for seat in self.seats]

    @torch.no_grad()
    def _validate(self) -> list[dict[str, float]]:
        """Cross-entropy and accuracy on the held-out samples, added up in the order and precision of Lightning's."""
        if not self.held_out:
            return [{}] * len(self.seats)
        total, count = torch.zeros((), dtype=next(iter(self.weights.stacked.values())).dtype), 0
        for x, labels in self.held_out:
            logits, S = self.forward.logits(self._moved(x)), len(self.seats)
            every = labels.to(logits.device).expand(S, -1)
            loss = functional.cross_entropy(logits.flatten(0, 1), every.flatten(), reduction="none").view(S, -1)
            right = (logits.argmax(2) == every).float().mean(1)
            sums = [(mean * len(labels)).to(loss.dtype) for mean in (loss.mean(1), right)]
            total, count = total.to(loss.device) + torch.stack(sums, dim=1), count + len(labels)
        names = ("validation/loss", "validation/accuracy")
        return [dict(zip(names, row, strict=True)) for row in (total / count).tolist()]

    def _call(self, hook: str, but: type | tuple[()] = ()) -> None:
        for seat in self.seats:
            for callback in seat.callbacks:
                if not isinstance(callback, but):
                    getattr(callback, hook)(self.clock, seat)


def _projected(modules: Sequence[Constrained]) -> JobFailed | None:
    try:
        for each in modules:
            each.project_()
    except JobFailed as error:
        return error
    return None
