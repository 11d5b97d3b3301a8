"""Blocks of optimiser steps in one call of Lightning's `training_step`; on a GPU each step replays one CUDA graph.

A GPU takes a step of a small network in a fraction of the time in which Python asks for its some three hundred kernels,
and Lightning for a batch. So a step (forward, backward, optimiser, projection) is recorded once, as a graph that finds
its batch and learning rates in places of their own, and Lightning takes a block of such steps for one batch. Epochs,
validation, callbacks, checkpoints and resuming stay Lightning's. On a CPU the same code runs, without the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning
import torch
from torch import Tensor

from robode.config.config import TrainConfig
from robode.foreign import native
from robode.network import Network
from robode.objectives.objective import Objective
from robode.runs.progress import new_console
from robode.training.callbacks import constrained
from robode.training.module import Training

HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step", "on_after_backward")
WARM = 3  # eager steps before one is recorded: libraries choose algorithms, the optimiser makes its state

Batch = tuple[Tensor, Tensor]
Play = Callable[[], None]


def block_size(callbacks: Sequence[lightning.Callback], batches: int) -> int:
    """The most steps between two at which a callback looks at the network that are the same in every epoch.

    A callback with a hook of a batch says by `every` how many optimiser steps lie between two of its looks; 0 = it may
    look at the end of any block. One that does not say it looks after each step. batches: of an epoch.
    """
    looking = (each for each in callbacks if any(_overrides(each, hook) for hook in HOOKS))
    return math.gcd(batches, *(int(getattr(each, "every", 1)) for each in looking))


def _overrides(callback: lightning.Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(lightning.Callback, hook)


def why_not(config: TrainConfig, network: Network, objectives: Mapping[str, Objective]) -> str:
    """What keeps steps from being replayed; empty where nothing does."""
    trainer, optimizer = config.trainer, str(config.optimizer.optimizer.target)
    draws = [name for name, objective in objectives.items() if not (native(objective) and objective.replayable)]
    late = [type(each).__name__ for each in constrained(network) if getattr(each, "project_every", 1) != 1]
    reasons = {
        "several processes train together": trainer.devices != 1,
        f"trainer.precision={trainer.precision} scales the loss": "true" not in str(trainer.precision),
        f"Lightning's {', '.join(trainer.more)} changes the loop": bool(trainer.more),
        f"objective={','.join(draws)} draws numbers or looks at them": bool(draws),
        f"{', '.join(late)} is projected now and then": bool(late),
        f"{optimizer} is not one whose steps a graph can hold": optimizer.split(".")[-1] not in ("Adam", "AdamW"),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def recorded(step: Play, device: torch.device) -> Play:
    """What does what `step` does, to what then lies in the same places: the replay of a CUDA graph; on a CPU `step`
    itself. Raises RuntimeError where a step waits for the GPU."""
    if device.type != "cuda":
        return step
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """A stream of its own on a GPU: what is recorded later must not have begun on the default one."""
    if device.type != "cuda":
        yield
        return
    side, usual = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        yield
    usual.wait_stream(side)


class CapturedTraining(Training):
    """`Training` whose batches are blocks, lists of (x, target). The same losses and weights up to rounding."""

    projects = True

    def __init__(self, network: Network, objectives: Mapping[str, Objective], config: TrainConfig):
        super().__init__(network, objectives, config)
        self.automatic_optimization = False
        self._constrained = constrained(network)
        self._sums: dict[str, Tensor] = {}  # over the samples of a block
        self._eager = 0  # steps so far
        self._replay: Play | None = None
        self._places: tuple[Tensor, ...] = ()  # where a recorded step finds x and target

    def on_train_start(self) -> None:
        """Learning rates become tensors, which a graph reads anew."""
        super().on_train_start()
        for group in self.optimizer.param_groups:
            group["capturable"] = self.device.type == "cuda"
        self._rates = [torch.zeros((), device=self.device) for _ in self.optimizer.param_groups]

    def training_step(self, block: list[Batch], batch_idx: int) -> Tensor:  # type: ignore[override]
        """block: of (x (B, *shape) in data units, target (B, ...)); one optimiser step for each. Returns the mean loss,
        0-d."""
        for x, target in block:
            self._step_on(x, target)
            self._follow("step")
        if self.trainer.is_last_batch:
            self._follow("epoch")  # when Lightning's own loop does
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for count in (progress.total, progress.current):
            count.ready += len(block)
            count.completed += len(block)
        n = sum(len(target) for _, target in block)
        self.count({name: value.clone() for name, value in self._sums.items()}, n)
        loss = self._sums["loss"] / n
        for value in self._sums.values():
            value.zero_()
        self.stop_if_not_finite(loss, x, batch_idx=0)  # looks once a block
        return loss

    def _follow(self, interval: str) -> None:
        if self.scheduler is not None and self.config.optimizer.interval == interval:
            self.scheduler.step()

    def _step_on(self, x: Tensor, target: Tensor) -> None:
        """A step, replayed where one is recorded for batches of this size."""
        if self._eager == WARM:
            self._record(x, target)
        if self._replay is None or x.shape != self._places[0].shape:
            self._eager += self._replay is None
            with beside(self.device):
                self._step(x, target)
            return
        for place, given in zip(self._places, (x, target), strict=True):
            place.copy_(given)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._replay()

    def _step(self, x: Tensor, target: Tensor) -> None:
        self.optimizer.zero_grad()
        loss, terms = self.loss_of(x, target)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in self.sums_of(loss, terms, target).items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(value)
            self._sums[name] += value
        self.optimizer.step()
        for each in self._constrained:
            each.project_()

    def _record(self, x: Tensor, target: Tensor) -> None:
        """Make `_replay`, or say why there is none; recording makes no step."""
        self._places = x.clone(), target.clone()
        groups = self.optimizer.param_groups
        usual = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        try:
            self._replay = recorded(lambda: self._step(*self._places), self.device)
        except RuntimeError as error:
            self._eager += 1
            text = f"steps are not replayed from a CUDA graph: {str(error).splitlines()[0]}"
            if self.run.warn(text):
                new_console().print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        finally:
            for group, lr in zip(groups, usual, strict=True):
                group["lr"] = lr
