"""A hundred classes from ten: pairs of handwritten digits side by side."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import SPLIT_SEED
from robode.errors import BadInput
from robode.tasks.classification import Classification

CLASSES = 100


class DigitPairs(Source):
    """Digits a and b side by side in one grey 28x28 image, with the label 10 a + b.

    Each of the two is squeezed to 28x14, the mean of neighbouring columns. A pair of the train split is drawn from the
    digits of the train split alone, and one of the test split likewise: the two share no digit, though validation data
    held out of the train split do. No pair comes twice. Every class has as many as another, but for one; always the
    same pairs, in mixed order.

    digits: a set of 28x28 digits, as bytes. train, test: how many pairs.

    Raises:
        BadInput: fewer than a pair a class, more than there are, or digits that are none.
    """

    def __init__(self, digits: Source, train: int = 10_000, test: int = 2_000) -> None:
        for key, count in (("train", train), ("test", test)):
            if count < CLASSES:
                raise BadInput(f"data.source.{key}={count}: expected at least {CLASSES}, one pair a class")
        if digits.info.shape != (1, 28, 28) or digits.info.task.outputs != 10:
            raise BadInput("data.source.digits: expected a set of 28x28 pictures in 10 classes, such as MNIST5k")
        self.digits, self.sizes = digits, (train, test)

    @property
    def info(self) -> DatasetInfo:
        names = tuple(f"{number:02d}" for number in range(CLASSES))
        # squeezing leaves the mean of MNIST's pixels, and some nineteen twentieths of their deviation
        return DatasetInfo((1, 28, 28), (0.1307,), (0.2930,), (0.0, 1.0), Classification(names))

    def load(self) -> tuple[Samples, Samples]:
        generator = np.random.default_rng(SPLIT_SEED)
        splits = zip(self.digits.load(), self.sizes, strict=True)
        train, test = (_pairs(split, count, generator) for split, count in splits)
        return train, test


def _pairs(digits: Samples, count: int, generator: np.random.Generator) -> Samples:
    labels = np.arange(count) % CLASSES
    of_class = [np.flatnonzero(digits.target.numpy() == digit) for digit in range(10)]
    chosen = np.empty((count, 2), dtype=np.int64)
    for label in range(CLASSES):
        left, right = of_class[label // 10], of_class[label % 10]
        places = np.flatnonzero(labels == label)
        if len(places) > len(left) * len(right):
            raise BadInput(
                f"data.source: {count} pairs are {len(places)} a class, and there are {len(left) * len(right)} of "
                f"class {label:02d}; choose smaller data.source.train and test"
            )
        pairs = generator.choice(len(left) * len(right), len(places), replace=False)
        chosen[places] = np.stack([left[pairs // len(right)], right[pairs % len(right)]], axis=1)
    order = generator.permutation(count)
    halves = [_squeezed(digits.x[torch.from_numpy(chosen[order, side])]) for side in (0, 1)]
    return Samples(torch.cat(halves, dim=3), torch.from_numpy(labels[order]))


def _squeezed(x: Tensor) -> Tensor:
    """(m, 1, 28, 28) bytes -> (m, 1, 28, 14) bytes."""
    halves: Tensor = x.view(-1, 1, 28, 14, 2).float().mean(4)
    return halves.round().to(torch.uint8)
