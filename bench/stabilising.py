"""What stabilising costs a training: the experiment stable_node_2025/fgsm on synthetic images of MNIST's shape, in CPU
seconds of one thread, each way next to the unconstrained baseline; and what the log of the log-norm costs."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning import Callback
from measure import Row
from parts import trained
from setting import Setting

from robode.config.compose import Request, compose_trainings

EPOCH, BATCH, TEST = 469, 128, 256  # batches of an epoch of MNIST in the experiment, and their size; test images
FREE = ("callbacks=none", "model.stabilise=none")
WAYS = {
    "projection, every=20": ("callbacks=none", "model.stabilise=projection", "model.every=20"),
    "projection, every=50": ("callbacks=none", "model.stabilise=projection", "model.every=50"),
    "penalty": ("callbacks=none", "model.stabilise=penalty", "objective=[cross_entropy,lognorm_penalty]"),
    "none, with callbacks=log_norms": ("callbacks=log_norms", "model.stabilise=none"),
}


class Clock(Callback):
    """CPU seconds of an epoch, its end with certificates and checkpoints included. Must be the last callback."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.process_time()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds = time.process_time() - self.start


def stabilise(setting: Setting) -> list[Row]:
    """The ways in turns, on one thread; each turn begins with another one. The ratio is way over baseline."""
    batches = setting.batches or EPOCH
    ways = {"none": FREE, **WAYS}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with TemporaryDirectory() as folder:
        file = images(Path(folder) / "images.npz", batches * BATCH)
        for turn in range(setting.turns):
            order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
            for name in order:
                times[name].append(epoch(file, ways[name]))
    unit = f"epoch of {batches} batches of {BATCH}"
    notes = {"baseline, CPU seconds an epoch": f"{median(times['none']):.2f}"}
    return [Row(f"stabilise: none, then {name}", unit, times["none"], times[name], notes=notes) for name in WAYS]


def epoch(file: Path, words: tuple[str, ...]) -> float:
    """CPU seconds of the first epoch, from the same initial weights for all."""
    fixed = ("experiment=stable_node_2025/fgsm", "data=arrays", f"data.file={file}", "data.validation=0")
    config = compose_trainings(Request("train", (*fixed, "epochs=1", "trainer.threads=1", *words)))[0]
    clock = Clock()
    trained(config, clock)
    return clock.seconds


def images(file: Path, count: int) -> Path:
    """Ten random images (28, 28), each with much noise, and their numbers."""
    torch.manual_seed(0)
    x = torch.rand(10, 28, 28)
    arrays = {}
    for split, size in (("train", count), ("test", TEST)):
        y = torch.arange(size) % 10
        noisy = (x[y] + 0.5 * torch.randn(size, 28, 28)).clamp(0, 1)
        arrays |= {f"x_{split}": (255 * noisy).to(torch.uint8).numpy(), f"y_{split}": y.numpy()}
    np.savez(file, **arrays)
    return file
