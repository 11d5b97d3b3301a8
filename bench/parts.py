"""The comparisons of the bench: each returns rows, robode first, the re-statement (or the plain way) second."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import restatement
import torch
from lightning import Callback
from measure import Row, in_turns, seconds
from rich.console import Console
from setting import Setting
from torch import Tensor, nn

from robode.config.config import TrainConfig
from robode.corruptions.noise import Clean
from robode.corruptions.protocols import ChNode2022
from robode.evaluation.measure import build_measurement, evaluate_suite
from robode.evaluation.request import Described, SuiteRequest
from robode.evaluation.suite import Plan
from robode.families import conv_gradient_flow
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.integrators.euler import Euler
from robode.linalg.convolution import conv_norm, norms_squared
from robode.network import Network
from robode.ode.sensitivity import bsm_norms
from robode.runs.run import Run, create
from robode.training.assembly import Parts, assemble, build_loggers
from robode.training.callbacks import BSMLogger, constrained
from robode.training.trainer import fit

HELP_TURNS = 5


class Turns(Callback):
    """After every `segment` of robode's batches the other side trains as many, with robode's clock stopped.

    ours, other: seconds per batch of each segment. tail: robode's seconds between its last batch and the end
    of the epoch (certificates, metrics, checkpoints). Must be the last callback.
    """

    def __init__(self, segment: int, train: Callable[[int], None]) -> None:
        self.segment, self.train = segment, train
        self.ours: list[float] = []
        self.other: list[float] = []
        self.sizes: list[int] = []
        self.tail = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        done = batch_idx + 1
        if done % self.segment and done != trainer.num_training_batches:
            return
        size = done - sum(self.sizes)
        self.ours.append((time.perf_counter() - self.start) / size)
        self.other.append(seconds(lambda: self.train(size)) / size)
        self.sizes.append(size)
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.tail = time.perf_counter() - self.start

    def totals(self) -> tuple[float, float]:
        """Seconds of the epoch, robode's with its tail."""
        ours, other = (sum(a * n for a, n in zip(times, self.sizes, strict=True)) for times in (self.ours, self.other))
        return ours + self.tail, other


def epoch(setting: Setting) -> list[Row]:
    """robode's whole loop (Lightning, gamma update, metrics, BSM log, checkpoints) and the plain one."""
    torch.manual_seed(restatement.SEED)
    network, optimizer, alpha = restatement.set_up(setting.model, setting.depth)
    data = setting.plain_data("train", restatement.customary())
    loader = restatement.loader(data, shuffle=True, workers=setting.workers)
    batches = iter(loader)
    clock = Turns(
        setting.segment,
        lambda n: restatement.train(network, itertools.islice(batches, n), optimizer, alpha),
    )
    parts = trained(setting.config(), clock)
    share = sum(clock.sizes) / len(loader)
    ours, other = clock.totals()
    test = restatement.loader(setting.plain_data("test", restatement.customary()))
    notes = {
        "batches": f"{sum(clock.sizes)}, {share:.0%} of an epoch",
        "of which robode's end of the epoch (certificates, checkpoints)": f"{clock.tail:.2f} s",
        "test accuracy afterwards, robode": round(clean_accuracy(parts), 4),
        "test accuracy afterwards, re-statement": round(restatement.accuracy(network, test), 4),
    }
    if share < 1:
        notes["whole epoch, scaled from these batches"] = f"{ours / share:.1f} s and {other / share:.1f} s"
    unit = "epoch" if share >= 1 else "part of an epoch"
    return [
        Row("training epoch", unit, [ours], [other], ">= 1.8", notes),
        Row("training step", "batch of 100", clock.ours, clock.other),
    ]


def trained(config: TrainConfig, clock: Callback) -> Parts:
    """A training through robode's own trainer, in a run folder that is thrown away."""
    parts = assemble(config, Console(file=io.StringIO()))
    with TemporaryDirectory() as folder:
        parts.module.run = create(Run(Path(folder) / "run"), config)
        parts.trainer.loggers = build_loggers(config.logger, parts.module.run)
        parts.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        fit(parts.trainer, parts.module, parts.data)
    return parts


def clean_accuracy(parts: Parts) -> float:
    """Of the network as it is, on the test set."""
    x, labels = parts.data.split("test")
    plan = Plan({"clean": Clean()}, ChNode2022(), parts.data.info, repeats=1)
    rows = evaluate_suite(parts.network, x, labels, plan)
    return float(rows[0]["score"])


class NoForwardPass(nn.Module):
    """Logits for nothing, so that only data and noise are timed."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 10)


def loading(setting: Setting) -> list[Row]:
    """Test images -> noisy batches, one copy a level."""
    noisy = setting.noisy_loaders()

    def plain() -> None:
        for each in noisy:
            for _ in each:
                pass

    ours, other = in_turns(noise_suite(setting.robode(), NoForwardPass()), plain, setting.turns)
    return [Row("noise and loading alone", "four levels, one copy", ours, other, ">= 20")]


def evaluation(setting: Setting) -> list[Row]:
    """The same with the forward passes of the network, untrained."""
    parts = setting.robode()
    network, _, _ = restatement.set_up(setting.model, setting.depth)
    network.layers.update()
    noisy = setting.noisy_loaders()

    def plain() -> None:
        for each in noisy:
            restatement.accuracy(network, each)

    ours, other = in_turns(noise_suite(parts, parts.network), plain, setting.turns)
    return [Row("noise evaluation", "four levels, one copy", ours, other, ">= 2.5")]


def noise_suite(parts: Parts, network: nn.Module) -> Callable[[], Any]:
    """robode's evaluation at the four published levels under the published protocol, ready to be timed."""
    usual = build_measurement(Described.of(parts.module.config), SuiteRequest.of(parts.module.config), parts.data.info)
    usual.plan.protocol.extras = ()  # the clip-only copy, which the published script does not make
    suite = {name: perturbation for name, perturbation in usual.plan.suite.items() if perturbation.stochastic}
    x, labels = parts.data.split("test")
    plan = replace(usual.plan, suite=suite, repeats=1)
    return lambda: evaluate_suite(network, x, labels, plan, usual.batch_size)


def bsm(setting: Setting) -> list[Row]:
    """One BSM log (its default number of samples) and one training step of the same network."""
    parts = setting.robode()
    network, optimizer = parts.network, parts.module.optimizer
    x, labels = next(iter(parts.data.train_dataloader()))
    probe = x[: BSMLogger().samples]

    def log(network: Network) -> None:
        with torch.no_grad():
            bsm_norms(network.flow, network.embed(probe))

    def step() -> None:
        optimizer.zero_grad()
        terms = [objective(network, x, labels) for objective in parts.module.objectives.values()]
        torch.stack([term for named in terms for term in named.values()]).sum().backward()
        optimizer.step()
        for module in constrained(network):
            module.project_()

    step()
    logs, steps = in_turns(lambda: log(network), step, 5 * setting.turns)
    cost = median(logs) / median(steps)
    notes = {
        "cost in training steps": round(cost, 2),
        "share of the training time at the default interval": f"{cost / (BSMLogger().every + cost):.1%}",
    }
    return [Row("one BSM log", "log", logs, notes=notes), Row("one training step", "batch of 100", steps)]


def norms(setting: Setting) -> list[Row]:
    """A training step of the convolutional gradient flow on 28x28 images: projected by `norms_squared`, and by the
    norms in float64 that certify."""
    flow = ConvGradientFlow(16, 6, Euler())
    flow.build((16, 28, 28))
    y = torch.randn(100, 16, 28, 28)

    def exact(kernels: Tensor, height: int, width: int) -> Tensor:
        return torch.stack([conv_norm(kernel, height, width) ** 2 for kernel in kernels]).float()

    def step(bound: Callable[[Tensor, int, int], Tensor]) -> None:
        conv_gradient_flow.norms_squared = bound
        flow.zero_grad()
        flow(y).square().mean().backward()
        flow.project_()

    ours, other = in_turns(lambda: step(norms_squared), lambda: step(exact), 5 * setting.turns)
    conv_gradient_flow.norms_squared = norms_squared
    return [Row("step of gradient_flow_conv, cheap and exact norms", "batch of 100", ours, other, "> 1.1")]


def cli(setting: Setting) -> list[Row]:
    """Help pages through the installed command beside this Python, or `python -m robode`."""
    found = shutil.which("robode", path=str(Path(sys.executable).parent))
    command = [found] if found else [sys.executable, "-m", "robode"]

    def times(*words: str) -> list[float]:
        run = [*command, *words]
        return [seconds(lambda: subprocess.run(run, check=True, capture_output=True)) for _ in range(HELP_TURNS)]

    return [
        Row("robode --help", "process", times("--help"), target="< 0.3 s"),
        Row("robode train --help", "process", times("train", "--help"), target="< 1.5 s"),
    ]
