"""What every data set promises besides what is looked at whenever it is loaded (`robode.data.samples`)."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robode.data.batches import TensorBatches, in_units
from robode.data.module import DataModule
from robode.tasks.denoising import Denoising

OFF = 0.01  # of the statistics, in data units for images and in standard deviations for vectors
NAMES = ("train", "validation", "test")


def bounds_are_those_of_the_kind(data: DataModule) -> list[str]:
    """Known without a file: (0, 1) for images, none for vectors and for images with noise."""
    shape, noisy = data.info.shape, isinstance(data.info.task, Denoising)
    expected = (0.0, 1.0) if len(shape) == 3 and not noisy else None
    if data.info.bounds == expected:
        return []
    return [f"info.bounds is {data.info.bounds}, expected {expected} for samples of shape {shape}"]


def no_sample_is_in_two_splits(data: DataModule) -> list[str]:
    """Unless the set is published with one split for both, which then holds nothing out."""
    if data.source.train_is_test:
        return ["something is held out, though train and test are the same"] if data.has_validation else []
    seen = {name: {bytes(row) for row in _rows(data.split(name)[0])} for name in present(data)}
    both = {(a, b): len(seen[a] & seen[b]) for a, b in combinations(seen, 2)}
    return [f"{count} samples are in {a} and in {b}" for (a, b), count in both.items() if count]


def loaders_cover_their_splits(data: DataModule) -> list[str]:
    """Each sample with its target once an epoch, in its shape."""
    found = []
    loaders = {"train": data.train_dataloader(), "test": data.test_dataloader(), "validation": data.val_dataloader()}
    for name in present(data):
        loader, (x, target) = loaders[name], data.split(name)
        assert isinstance(loader, TensorBatches)
        batches = list(loader)
        if len(batches) != len(loader) or len(loader) != math.ceil(len(target) / data.batch_size):
            found.append(f"{name}: {len(batches)} batches, of which the loader says {len(loader)}")
        wanted, given = _told(in_units(x), target), _told(*map(torch.cat, zip(*batches, strict=True)))
        if sorted(wanted) != sorted(given):
            found.append(f"{name}: an epoch is not every sample with its target once")
    return found


def loading_twice_gives_the_same(data: DataModule) -> list[str]:
    """Samples do not depend on a seed, a generator or the clock."""
    torch.manual_seed(1)
    first = data.source.load()
    torch.manual_seed(2)
    second = data.source.load()
    same = all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))
    return [] if same else ["load() twice gives different samples"]


def statistics_are_those_of_the_training_samples(data: DataModule) -> list[str]:
    """mean and std are as the source says; of vectors they may be zeros and ones, for "not normalised"."""
    info, x = data.info, in_units(data.source.load()[0][0])
    if info.bounds is None and set(info.mean) == {0.0} and set(info.std) == {1.0}:
        return []
    pixels = x.transpose(0, 1).flatten(1).double()
    found, off = [], OFF if info.bounds else OFF * max(info.std)
    for name, said, measured in (("mean", info.mean, pixels.mean(1)), ("std", info.std, pixels.std(1))):
        if any(abs(a - b) > off for a, b in zip(said, measured.tolist(), strict=True)):
            shown = ", ".join(f"{number:.4g}" for number in measured.tolist()[:3])
            found.append(f"info.{name} is {said[:3]}, and that of the training samples {shown}")
    return found


INFO = (bounds_are_those_of_the_kind,)
SAMPLES = (
    no_sample_is_in_two_splits, loaders_cover_their_splits, loading_twice_gives_the_same,
    statistics_are_those_of_the_training_samples,
)  # fmt: skip


def present(data: DataModule) -> list[str]:
    """Names of the splits that there are."""
    return [name for name in NAMES if name != "validation" or data.has_validation]


def _rows(x: Tensor) -> NDArray[np.generic]:
    rows: NDArray[np.generic] = x.flatten(1).contiguous().numpy()
    return rows


def _told(x: Tensor, target: Tensor) -> list[bytes]:
    """What tells a sample with its target from others."""
    return [bytes(a) + bytes(b) for a, b in zip(_rows(x), _rows(target[:, None]), strict=True)]
