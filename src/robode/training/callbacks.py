"""Keeping constraints while training, and measuring sensitivities and robustness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from robode.data.batches import in_units
from robode.errors import BadInput, JobFailed
from robode.evaluation.measure import build_measurement
from robode.evaluation.request import Described, SuiteRequest
from robode.network import Network
from robode.ode.flow import Constrained, Flow
from robode.ode.lognorm import LogNormBounds
from robode.ode.sensitivity import BSM, bsm_norms, parameter_gradients
from robode.runs.checkpoints import Saved
from robode.runs.results import append_rows
from robode.runs.run import Run
from robode.runs.table import BSM_NORMS
from robode.training.module import OfStep, Training, looks
from robode.training.recorder import send


def constrained(network: nn.Module) -> list[Constrained]:
    """Every submodule that keeps a constraint."""
    return [module for module in network.modules() if isinstance(module, Constrained)]


class ProjectConstraints(Callback):
    """Calls `project_` (the gamma update) before the first forward pass and after every optimiser step, or every
    `project_every` steps and the last of an epoch where that takes long.

    So the network that any checkpoint or early stop leaves behind satisfies its constraints. Recipes that
    make their first forward pass unprojected (the published scripts start at gamma = 0) say so by
    `project_at_start = False`. Where steps are replayed from a graph, projections are a part of them.
    """

    every = 0  # any end of a block will do (`training.captured`)

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Before the first step."""
        self._modules = constrained(module.network)
        self._project(trainer, [each for each in self._modules if getattr(each, "project_at_start", True)])

    def on_train_batch_end(self, trainer: Trainer, module: Training, *step: OfStep) -> None:  # type: ignore[override]
        """What is due after this step; after the last one of an epoch, all."""
        last = trainer.is_last_batch
        due_now = [each for each in self._modules if last or due(each, trainer.global_step)]
        self._project(trainer, due_now, done=module.projects)

    @staticmethod
    def _project(trainer: Trainer, modules: list[Constrained], done: bool = False) -> None:
        for each in () if done else modules:
            each.project_()
        if not looks(trainer):
            return
        for each in modules:
            if reason := useless(each):  # say when
                raise JobFailed(f"step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {reason}")


def due(module: Constrained, step: int) -> bool:
    """Whether it is projected after this optimiser step."""
    every: int = getattr(module, "project_every", 1)
    return step % every == 0


def useless(module: Constrained) -> str | None:
    """Why a module that keeps a constraint cannot go on: weights that are not finite, or what the module itself says of
    what follows them (`Flow.defect`). Reads from the device."""
    weights = module.parameters() if isinstance(module, nn.Module) else ()
    if not all(bool(each.isfinite().all()) for each in weights):
        return "the weights are not finite: training diverged; try a smaller lr, step or horizon"
    return module.defect() if isinstance(module, Flow) else None


def bsm_columns(bsm: BSM) -> Tensor:
    """What bsm.csv holds of a BSM, in its order: (N, ..., 6)."""
    median, step_median = bsm.norms.median(-1).values, bsm.step_norms.median(-1).values
    columns = (
        median, bsm.norms.amax(-1), bsm.norm_of_mean, step_median, bsm.step_norms.amax(-1), bsm.norms.amin(-1)
    )  # fmt: skip
    return torch.stack(columns, dim=-1)


def point_columns(network: Network, x: Tensor, target: Tensor) -> Tensor:
    """What bsm.csv holds of one sample, x (1, *shape) in data units, in the order of OF_ONE_POINT: (N, 3)."""
    with torch.no_grad():
        y, context = network.encode(x.to(next(network.parameters()).dtype))
        last = network.flow(y, context)
        norms = bsm_norms(network.flow, y, context).norms[:, 0]
    with torch.enable_grad():
        last = last.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.info.task.loss(network.head(last.flatten(1)), target), last)
    found = parameter_gradients(network.flow, y, slope[0], context)
    return torch.stack([norms, found.norms, found.bounds], dim=1).detach()


class BSMLogger(Callback):
    """Backward sensitivity norms of each layer to bsm.csv, every `every` optimiser steps.

    samples: how many training samples, evenly spaced over the split (toy sets lie class by class) and always the
    same, probe the flow. The smallest, the median and the largest over samples and the norm of the mean Jacobian are
    logged; only the last is in the published figure. Flows whose pixels mix, or whose steps give no
    Jacobians, have no exact norms, and no rows.
    point: the number of a test sample whose norms are logged too, with the gradient of its loss by the parameters of
    each layer and the product that bounds it; None: of none. It is looked at and decides nothing.
    """

    def __init__(self, every: int = 50, samples: int = 8, point: int | None = None):
        for key, value in (("every", every), ("samples", samples)):
            if value < 1:
                raise BadInput(f"callbacks.bsm.{key}: expected a whole number >= 1, got {value}")
        self.every, self.samples, self.point = every, samples, point
        self._waiting: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Chooses the samples. Raises `BadInput` for a point that the test split lacks."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        x = data.split("train").x
        chosen = torch.linspace(0, len(x) - 1, min(self.samples, len(x))).round().long()
        self.probe = in_units(x[chosen]).to(module.device)
        if self.point is None:
            return
        test = data.split("test", module.device)
        if not 0 <= self.point < len(test.x):
            raise BadInput(
                f"callbacks.bsm.point: expected the number of a test sample, 0 to {len(test.x) - 1}, got {self.point}"
            )
        self.one = in_units(test.x[self.point : self.point + 1]), test.target[self.point : self.point + 1]

    def on_train_batch_start(self, trainer: Trainer, module: Training, *step: OfStep) -> None:  # type: ignore[override]
        """Measures every `every` optimiser steps."""
        if trainer.global_step % self.every == 0:
            self._log(trainer.global_step, module)

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Writes what was measured."""
        self.write(module.run)

    def on_save_checkpoint(self, trainer: Trainer, module: Training, checkpoint: Saved) -> None:  # type: ignore[override]
        """Before the last epoch counts as done: a run that is cut off after that has nothing left to train."""
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            self._log(trainer.global_step, module)
            self.write(module.run)

    def on_exception(self, trainer: Trainer, module: Training, exception: BaseException) -> None:  # type: ignore[override]
        """What was measured until then is kept."""
        self.write(module.run)

    @rank_zero_only
    def _log(self, step: int, module: Training) -> None:
        network = module.network
        if not network.flow.pixelwise:
            return
        with torch.no_grad():
            y, context = network.encode(self.probe.to(next(network.parameters()).dtype))
            try:
                bsm = bsm_norms(network.flow, y, context)
            except BadInput:  # a family whose steps give no Jacobians
                return
        columns = bsm_columns(bsm)
        if self.point is not None:
            columns = torch.cat([columns, point_columns(network, *self.one)], dim=1)
        self.add(step, columns.tolist())

    def add(self, step: int, layers: Iterable[Iterable[float]]) -> None:
        """A row for each layer, in the order of `bsm_columns`. They wait for `write`, which an epoch calls once."""
        for layer, values in enumerate(layers, 1):
            self._waiting.append(dict(zip(BSM_NORMS.columns, (step, layer, *values), strict=False)))

    def write(self, run: Run) -> None:
        """Append the waiting rows to bsm.csv. Raises `JobFailed`."""
        rows, self._waiting = self._waiting, []
        BSM_NORMS.append(run.folder / "bsm.csv", rows)


class LogNormLogger(Callback):
    """flow/delta_lower and flow/delta_upper: certified bounds of the largest log-norm of the fields' Jacobians over all
    slopes of the activation and all layers, before the first step and at epoch ends. Two solutions of the ODE separate
    by e^(delta T) at most; e^(sum of h delta_j), with the delta of each layer, is flow/flow_ode.

    every_n_epochs: how often; the last epoch is always measured. The search begins where that of the last time ended
    and leaves weights and random generators as they are. Flows whose fields do not know both bounds have no rows.
    """

    def __init__(self, every_n_epochs: int = 1):
        if every_n_epochs < 1:
            raise BadInput(f"callbacks.log_norms.every_n_epochs: expected a whole number >= 1, got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs
        self._known: list[LogNormBounds] = []

    def on_train_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Of the initial weights."""
        self._step = trainer.global_step
        if self._step == 0:
            self._log(trainer, module.network.flow)

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Every so many epochs, and after the last one."""
        done, before, self._step = trainer.current_epoch + 1, self._step, trainer.global_step
        last = trainer.should_stop or done == trainer.max_epochs
        # Lightning closes the last epoch a second time when it resumes: no step has been made
        if self._step > before and (last or done % self.every_n_epochs == 0):
            self._log(trainer, module.network.flow)

    @rank_zero_only
    def _log(self, trainer: Trainer, flow: Flow) -> None:
        self._known = flow.lognorm_bounds(self._known)
        if self._known:
            lower, upper = max(each.lower for each in self._known), max(each.upper for each in self._known)
            send(trainer, trainer.current_epoch, {"flow/delta_lower": lower, "flow/delta_upper": upper})

    def state_dict(self) -> dict[str, list[tuple[float, float, Tensor | None, Tensor | None]]]:
        """Where the next search begins, so that a resumed run finds what an uninterrupted one would have found."""
        return {"known": [(each.lower, each.upper, each.vector, each.theta) for each in self._known]}

    def load_state_dict(self, state: dict[str, list[tuple[float, float, Tensor | None, Tensor | None]]]) -> None:
        """Where the next search begins."""
        self._known = [LogNormBounds(*each) for each in state["known"]]


class RobustnessSweep(Callback):
    """Appends rows (with `epoch`, counted from 0) to robustness_sweep.csv, from which the figure is drawn.

    every_n_epochs: how often; the last epoch is always measured. repeats: noisy copies per level. The test
    set is never looked at. Random generators and the network are left as they were. Without validation data
    (data.validation=0) it measures nothing.
    """

    def __init__(self, every_n_epochs: int = 1, repeats: int = 1):
        for key, value in (("every_n_epochs", every_n_epochs), ("repeats", repeats)):
            if value < 1:
                raise BadInput(f"callbacks.robustness_sweep.{key}: expected a whole number >= 1, got {value}")
        self.every_n_epochs, self.repeats = every_n_epochs, repeats

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Measures where that is due, and appends the rows."""
        epoch = trainer.current_epoch
        due = (epoch + 1) % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not due or not trainer.is_global_zero or not data.has_validation:
            return
        measurement = build_measurement(
            Described.of(module.config), replace(SuiteRequest.of(module.config), repeats=self.repeats), data.info
        )
        x, target = data.split("validation", module.device)
        about = measurement.about(
            module.run, module.network, split="validation", checkpoint="training", digest=data.digest
        )
        rows = measurement.rows(about, module.network, x, target)
        append_rows(module.run.folder / "robustness_sweep.csv", [{**row, "epoch": epoch} for row in rows])
