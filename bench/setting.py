"""What the bench measures on, and the same data and network for either side."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import restatement
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robode.config.compose import Request, compose_trainings
from robode.config.config import TrainConfig
from robode.training.assembly import Parts, assemble, build_data

MNIST_FILE = "MNIST/raw/train-images-idx3-ubyte"


@dataclass(frozen=True)
class Setting:
    """One run of the bench. data: mnist or mnist5k; batches: of the epoch, None for all."""

    model: str
    depth: int
    data: str
    root: str
    batches: int | None
    segment: int
    turns: int
    workers: int

    @classmethod
    def choose(cls, args: Namespace, model: str) -> Setting:
        """Full MNIST where its files are, else the 5 000 digits that come with a dependency."""
        data = "mnist" if (Path(args.data_root) / MNIST_FILE).exists() else "mnist5k"
        root = args.data_root
        return cls(model, args.depth, data, root, args.batches, args.segment, args.turns, args.workers)

    @property
    def label(self) -> str:
        return "full MNIST" if self.data == "mnist" else "mnist5k, for want of full MNIST at --data-root"

    def facts(self) -> dict[str, Any]:
        """For the JSON file; where the data lie is nobody's business."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    def config(self) -> TrainConfig:
        """The published recipe for this model, composed as `robode train` composes it."""
        words = ["experiment=chnode_2022/table1", f"model={self.model}", f"depth={self.depth}"]
        words += [f"data={self.data}", "data.validation=0", "epochs=1", "repeats=1"]
        if self.data == "mnist":
            words.append(f"data.root={self.root}")
        if self.batches is not None:
            words.append(f"+trainer.limit_train_batches={self.batches}")
        return compose_trainings(Request("train", tuple(words)))[0]

    def robode(self) -> Parts:
        """Data, network, module and trainer as `robode train` assembles them."""
        return assemble(self.config())

    def plain_data(self, split: str, transform: Callable[[Any], Any]) -> Dataset[Any]:
        """Data of the re-statement: torchvision's MNIST, or robode's own split of the digits behind PIL."""
        if self.data == "mnist":
            return restatement.mnist(self.root, split == "train", transform)
        x, labels = build_data(self.config()).split(split)
        return Digits(x, labels, transform)

    def noisy_loaders(self) -> list[DataLoader[Any]]:
        """The noisy test set of the re-statement at each level of Table I; every pass draws new noise."""
        levels = [self.plain_data("test", restatement.noisy(*level)) for level in restatement.NOISE_LEVELS]
        return [restatement.loader(data, workers=self.workers) for data in levels]


class Digits(Dataset[Any]):
    """x: (n, 1, 28, 28) uint8, labels: (n,), handed out image by image as torchvision does."""

    def __init__(self, x: Tensor, labels: Tensor, transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = x[:, 0].numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[i], mode="L")), self.labels[i]
