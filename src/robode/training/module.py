"""The LightningModule: loss, score and optimiser; callbacks write things down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, TypeAlias, TypedDict

import lightning
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from robode.config.config import TrainConfig
from robode.errors import BadInput, JobFailed
from robode.foreign import native
from robode.network import Network
from robode.objectives.objective import Objective
from robode.runs.checkpoints import Saved
from robode.runs.run import Run

LOOK_EVERY = 50  # On a GPU each look at the loss waits for the device; on a CPU it costs nothing.


def looks(trainer: lightning.Trainer, batch_idx: int | None = None) -> bool:
    """Whether this step looks at values: always on a CPU, where it costs nothing, else every `LOOK_EVERY` steps and at
    the end of an epoch. batch_idx: of the step that runs; after it, the trainer knows."""
    step = trainer.global_step if batch_idx is None else batch_idx
    on_cpu = trainer.strategy.root_device.type == "cpu"
    return on_cpu or step % LOOK_EVERY == 0 or bool(trainer.is_last_batch)


OfStep: TypeAlias = STEP_OUTPUT | tuple[Tensor, Tensor] | int
"""What Lightning hands to a hook of a step: what the step gave, the batch, its number in the epoch."""


class Generators(TypedDict):
    """The states of torch's random generators, of the CPU and of each GPU."""

    cpu: Tensor
    cuda: list[Tensor]


class Tally:
    """Sums over samples, kept on the device: adding a batch costs no synchronisation."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor], count: int) -> None:
        """values: sums over `count` samples, 0-d."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.sums["count"] = self.sums.get("count", torch.zeros((), device=value.device)) + count

    def means(self, trainer: lightning.Trainer) -> dict[str, float]:
        """Means since the last call, over all processes. Every process must call it at the same step."""
        if not self.sums:
            return {}
        names, stacked = list(self.sums), torch.stack([value.double() for value in self.sums.values()])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(stacked)
        self.sums = {}
        sums = dict(zip(names, stacked.tolist(), strict=True))
        count = sums.pop("count")
        return {name: value / count for name, value in sums.items()}


class Training(lightning.LightningModule):
    """Trains a Network on the sum of the terms of its objectives.

    objectives: name -> Objective. config, run: the configuration (its `optimizer` is built here) and the run folder,
    for callbacks; run is set before fit.
    """

    run: Run
    epoch_means: dict[str, float] | None = None
    projects: ClassVar[bool] = False  # its steps project themselves; otherwise `ProjectConstraints` does it

    def __init__(self, network: Network, objectives: Mapping[str, Objective], config: TrainConfig):
        super().__init__()
        self.network, self.objectives, self.config = network, objectives, config
        params: Iterable[tuple[str, nn.Parameter]] = network.named_parameters()
        if not config.epochs:  # no step is made: an optimiser that projects when it is built gets copies
            params = [(name, nn.Parameter(p.detach().clone(), p.requires_grad)) for name, p in params]
        self.optimizer = config.optimizer.optimizer.build(params=params)
        scheduler = config.optimizer.scheduler
        self.scheduler = scheduler.build(optimizer=self.optimizer) if scheduler else None
        if isinstance(self.scheduler, ReduceLROnPlateau):
            raise BadInput("optimizer.scheduler: ReduceLROnPlateau cannot be resumed exactly; use e.g. StepLR")
        self.window, self.whole_epoch = Tally(), Tally()
        self._trusted = all(map(native, objectives.values()))
        self._output: Tensor | None = None
        self._rng: Generators | None = None
        network.register_forward_hook(self._remember)

    def _remember(self, network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._output = output.detach() if self._trusted else output.detach().clone()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, with its schedule where it has one."""
        if self.scheduler is None:
            return self.optimizer
        return {
            "optimizer": self.optimizer,
            "lr_scheduler": {"scheduler": self.scheduler, "interval": self.config.optimizer.interval},
        }

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """batch: x (B, *shape) in data units, target (B, ...)."""
        x, target = batch
        loss, terms = self.loss_of(x, target)
        self.stop_if_not_finite(loss, x, batch_idx)
        self.count(self.sums_of(loss, terms, target), len(target))
        return loss

    def loss_of(self, x: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, 0-d, and its terms by name."""
        terms: dict[str, Tensor] = {}
        self._output = None  # objectives that solve no ODE make no forward pass
        with self._placed():
            for objective in self.objectives.values():
                own = native(objective)  # somebody else's gets copies, which it may work on in place
                terms |= objective(self.network, x if own else x.clone(), target if own else target.clone())
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        return loss, terms

    @property
    def place(self) -> str:
        """Where the training is, and its learning rate."""
        lr = self.optimizer.param_groups[0]["lr"]
        return f"step {self.global_step} (epoch {self.current_epoch + 1}, lr={lr:g})"

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Says when a part of the network gave up. What is refused at once, before a step was made, is bad input."""
        try:
            yield
        except (BadInput, JobFailed) as error:
            if isinstance(error, BadInput) and not self.global_step:
                raise
            raise JobFailed(f"{self.place}: {error}") from error

    def sums_of(self, loss: Tensor, terms: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """What is logged of a batch, as sums over its samples, 0-d: the loss, its terms, notes and the score."""
        n = len(target)
        sums = {"loss": loss.detach() * n}
        if len(terms) > 1:
            sums |= {name: term.detach() * n for name, term in terms.items()}
        for objective in self.objectives.values():
            sums |= {name: note * n for name, note in objective.notes().items()}
        if self._output is not None:  # of the last forward pass that the objectives made
            task = self.network.info.task
            sums[task.score_name] = task.score(self._output, target).sum(dtype=torch.float64)
        return sums

    def count(self, sums: Mapping[str, Tensor], n: int) -> None:
        """Add sums over n samples to what is logged."""
        self.window.add(sums, n)
        self.whole_epoch.add(sums, n)

    def stop_if_not_finite(self, loss: Tensor, x: Tensor, batch_idx: int) -> None:
        """Raises `JobFailed` where the loss is looked at (`looks`) and is not finite."""
        if looks(self.trainer, batch_idx):
            value = loss.item()
            if not math.isfinite(value):
                lr = self.optimizer.param_groups[0]["lr"]
                step, epoch = self.global_step, self.current_epoch + 1
                raise blown_up(self.network, x, value, step=step, epoch=epoch, lr=lr)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The loss and the score of the task, whatever the objectives are."""
        x, target = batch
        with self._placed():
            output, task = self.network(x), self.network.info.task
        values = {
            "validation/loss": task.loss(output, target),
            f"validation/{task.score_name}": task.score(output, target).mean(),
        }
        self.log_dict(values, on_epoch=True, batch_size=len(target), sync_dist=True, logger=False)

    def on_save_checkpoint(self, checkpoint: Saved) -> None:
        """Random generators too: a resumed run draws what the uninterrupted one would have drawn."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        checkpoint["rng"] = Generators(cpu=torch.get_rng_state(), cuda=cuda)

    def on_load_checkpoint(self, checkpoint: Saved) -> None:
        """Notes the random generators, which `on_train_start` sets."""
        self._rng = checkpoint.get("rng")

    def on_train_start(self) -> None:
        """Random generators as the run that goes on left them."""
        if self._rng is not None:
            torch.set_rng_state(self._rng["cpu"].cpu())
            if len(self._rng["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._rng["cuda"]])


def blown_up(network: Network, x: Tensor, loss: float, *, step: int, epoch: int, lr: float) -> JobFailed:
    """The one-line failure for a non-finite loss on the batch x (B, *shape), before optimiser step `step`."""
    flow, failed = network.flow, f"loss is {loss} at step {step} (epoch {epoch})"
    if of_data := _of_data(network, x):
        return JobFailed(f"{failed}: {of_data}; put the data right, since no lr, step or horizon helps")
    return JobFailed(
        f"{failed}: {_origin(network, x)}; try a smaller lr (now {lr:g}), a smaller step or horizon "
        f"(now h={float(flow.h):.3g}), or integrator=etd (now {flow.integrator.name})"
    )


@torch.no_grad()
def _of_data(network: Network, x: Tensor) -> str:
    """What is wrong with the batch itself, whatever the weights are; empty where nothing is."""
    if len(wrong := (~x.isfinite()).flatten(1).any(1).nonzero()):
        return f"the data are not finite (sample {int(wrong[0])} of the batch)"
    if not bool(network.normalise.std.all()):
        return "a standard deviation of the data is 0, and samples are divided by it"
    return "" if network.normalise(x).isfinite().all() else "the samples overflow where they are normalised"


@torch.no_grad()
def _origin(network: Network, x: Tensor) -> str:
    """The first place where something is not finite."""
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return f"the last update made {name} non-finite"
    y, context = network.encode(x)
    if not y.isfinite().all():
        return "the encoder's output is not finite"
    if reason := network.flow.defect():
        return reason
    for layer, state in enumerate(network.flow.states(y, context)[1:], 1):
        if not state.isfinite().all():
            return f"the state after layer {layer} of {network.flow.depth} is the first that is not finite"
    return "all states are finite, so the head or a loss term overflowed"
