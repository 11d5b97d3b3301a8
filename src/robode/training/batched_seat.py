"""One seed of a batch: what a separate training keeps in its Classifier, its Trainer and its last.ckpt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from omegaconf import DictConfig
from torch import Tensor

from robode.data.batches import EpochOrder
from robode.data.facts import DataFacts
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.instantiate import build_each, to_plain
from robode.network import Network, build_network
from robode.objectives.objective import Objective
from robode.runs import Run
from robode.training.assembly import build_loggers
from robode.training.batched_forward import get_rng
from robode.training.batched_weights import Saved, Weights
from robode.training.checkpoints import PREFIX, load_weights, read_checkpoint


@dataclass
class Clock:
    """Where the training stands, under the names by which callbacks ask Lightning's trainer."""

    datamodule: DataModule
    max_epochs: int
    current_epoch: int = 0
    global_step: int = 0
    world_size: int = 1
    is_global_zero: bool = True


@dataclass(frozen=True)
class Snapshot:
    """A batch at the end of an epoch, kept until checkpoints are made of it. It shares no memory with the training.

    seeds: whom it shows, in the order of the common tensors. buffers, best and rngs: of each of them.
    """

    epoch: int
    step: int
    seeds: list[int]
    weights: Saved
    buffers: list[dict[str, Tensor]]
    best: list[dict[str, Any]]
    rngs: list[dict[str, Any]]
    loops: Callable[[], dict[str, Any]]

    def content(self, seat: Seat) -> dict[str, Any]:
        """What a separate training would have put into last.ckpt."""
        s = self.seeds.index(seat.config["seed"])
        parameters = {name: value[s] for name, value in self.weights.parameters.items()}
        state = {**parameters, **self.buffers[s]}
        return {
            "epoch": self.epoch,
            "global_step": self.step,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {PREFIX + name: state[name].clone() for name in seat.network.state_dict()},
            "loops": self.loops(),
            "callbacks": {"Checkpoints": self.best[s]},
            "optimizer_states": [self.weights.optimizer_of(s)],
            "lr_schedulers": self.weights.schedulers,
            "rng": self.rngs[s],
        }


@dataclass(eq=False)
class Seat:
    """network and run are what callbacks ask a Classifier for. content: of last.ckpt, None before there is one;
    newest: what it has to become, better: what best.ckpt has to become. failure: why this seed has left the batch."""

    config: Mapping[str, Any]
    run: Run
    network: Network
    objectives: Mapping[str, Objective]
    callbacks: list[Any]
    loggers: list[Any]
    order: EpochOrder
    rng: dict[str, Any]
    device: torch.device
    best: float = -1.0
    best_step: int = -1
    content: dict[str, Any] | None = None
    newest: Snapshot | None = None
    better: Snapshot | None = None
    failure: JobFailed | None = None

    @property
    def epochs(self) -> int:
        """How many last.ckpt has."""
        return 0 if self.content is None else self.content["epoch"] + 1

    def restore(self, content: dict[str, Any]) -> None:
        """Stand where a checkpoint was written, by a batch or by a separate training."""
        self.content = content
        state = content["state_dict"]
        self.network.load_state_dict({k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)})
        known = content["callbacks"]["Checkpoints"]
        self.best, self.best_step = known["best"], known["best_step"]
        self.rng = content["rng"]

    def buffers(self) -> dict[str, Tensor]:
        """Copies of what the state dict holds besides parameters."""
        own = dict(self.network.named_parameters())
        return {name: value.clone() for name, value in self.network.state_dict().items() if name not in own}


def snapshot(seats: Sequence[Seat], clock: Clock, weights: Weights, loops: Callable[[], dict[str, Any]]) -> Snapshot:
    """The batch as it is now. loops: makes the state of Lightning's loops (`loops_after`)."""
    return Snapshot(
        clock.current_epoch, clock.global_step, [seat.config["seed"] for seat in seats], weights.saved(),
        [seat.buffers() for seat in seats], [{"best": seat.best, "best_step": seat.best_step} for seat in seats],
        [seat.rng for seat in seats], loops,
    )  # fmt: skip


def take_seat(config: DictConfig, run: Run, facts: DataFacts, device: torch.device) -> Seat:
    """Network, objectives, callbacks and loggers of one seed, at its last.ckpt if it has one.

    Raises:
        BadInput: last.ckpt is damaged or of another network.
    """
    plain = to_plain(config)
    torch.manual_seed(plain["seed"])
    network = build_network(config, facts)
    rng = get_rng()
    content = None
    if run.last.is_file():
        content = read_checkpoint(run.last)
        load_weights(run.last, network)  # says in one line what does not fit
        if "rng" not in content or "Checkpoints" not in content.get("callbacks", {}):
            raise BadInput(f"{run.last}: expected a checkpoint of this version of robode; train the run anew")
    if str(plain["trainer"]["precision"]) in ("64", "64-true"):
        network.double()
    seat = Seat(
        plain, run, network.to(device), build_each(plain["objective"]), list(build_each(plain["callbacks"]).values()),
        build_loggers(plain["logger"], run), EpochOrder(plain["seed"]), rng, device,
    )  # fmt: skip
    if content is not None:
        seat.restore(content)
    return seat


def loops_after(trainer: lightning.Trainer, epochs: int, batches: int, held_out: int, moves: int) -> dict[str, Any]:
    """The `loops` of a Lightning checkpoint at the end of an epoch, so that `resume` can go on from it.

    trainer: one that has not run. batches, held_out: training and validation batches an epoch; moves: of the
    learning rate an epoch.
    """
    loops = {f"{name}_loop": getattr(trainer, f"{name}_loop").state_dict() for name in ("fit", "validate", "test")}
    loops["predict_loop"] = trainer.predict_loop.state_dict()
    fit = loops["fit_loop"]
    steps = epochs * batches
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    _set(fit["epoch_loop.batch_progress"], steps, batches)
    _set(fit["epoch_loop.scheduler_progress"], epochs * moves, moves)
    optimizer = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    _set(optimizer["step"], steps, batches)
    _set(optimizer["zero_grad"], steps, batches)
    _set(fit["epoch_loop.val_loop.batch_progress"], held_out, held_out)
    _set(fit["epoch_progress"], epochs, epochs)
    for counts in (fit["epoch_progress"]["total"], fit["epoch_progress"]["current"]):
        counts["completed"] = epochs - 1  # the checkpoint is part of the epoch
    return loops


def _set(progress: dict[str, Any], total: int, current: int) -> None:
    for name, number in (("total", total), ("current", current)):
        progress[name] = dict.fromkeys(progress[name], number)
    if "is_last_batch" in progress:
        progress["is_last_batch"] = current > 0
