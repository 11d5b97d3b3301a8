"""The one LightningDataModule: holds a source's tensors and carves validation from its training split; and parts of a
split, the first samples, or equally spaced ones where the samples stand class by class."""

from __future__ import annotations

import hashlib
from functools import cached_property

import lightning
import numpy as np
import torch
from torch import Tensor

from robode.config.config import DataConfig
from robode.config.validate import check_limit, check_validation
from robode.data.augment import Augmentation
from robode.data.batches import Blocks, EpochOrder, TensorBatches, in_units, placed
from robode.data.info import Samples, Source
from robode.data.samples import info_of, load_checked, load_own_validation
from robode.errors import BadInput
from robode.foreign import refused

SPLIT_SEED = 2022
"""Which samples are held out never depends on the user's seed: runs with different seeds stay comparable."""


def stratified(labels: Tensor, n: int) -> Tensor:
    """Sorted indices (n,) of `n` samples whose class shares are those of `labels` (m,), rounded by largest
    remainder; of one class, any samples. A fixed draw: equal labels and n give equal indices."""
    generator = np.random.default_rng(SPLIT_SEED)
    values, counts = np.unique(labels.numpy(), return_counts=True)
    exact = counts * n / counts.sum()
    take = np.floor(exact).astype(int)
    take[np.argsort(take - exact, kind="stable")[: n - take.sum()]] += 1
    members = [np.flatnonzero(labels.numpy() == value) for value in values]
    chosen = [generator.permutation(m)[:k] for m, k in zip(members, take, strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def held_out(samples: Samples, strata: Tensor, n: int) -> tuple[Samples, Samples]:
    """(the rest, `n` samples), both in the order in which they lie; `stratified` by strata (m,)."""
    chosen = stratified(strata, n)
    rest = torch.ones(len(strata), dtype=torch.bool).index_fill(0, chosen, False)
    return Samples(samples.x[rest], samples.target[rest]), Samples(samples.x[chosen], samples.target[chosen])


def places(n: int, count: int) -> Tensor:
    """(min(count, n),) int64: so many of n samples at equal distances."""
    return torch.linspace(0, n - 1, min(count, n)).round().long()


def spread(split: Samples, count: int) -> Samples:
    """`count` samples, or all, at equal distances."""
    chosen = places(len(split.target), count)
    return Samples(split.x[chosen], split.target[chosen])


def part(split: Samples, limit: int | None, source: Source) -> Samples:
    """`limit` samples of a split of that source; None: all. The first ones of a set of images, which are published in
    no order; the first ones of a set that lies class by class would be of one class, so there they are spread."""
    if limit is None:
        return split
    return spread(split, limit) if source.by_class else Samples(split.x[:limit], split.target[:limit])


def part_digest(digest: str, limit: int | None, source: Source) -> str:
    """The digest of that part of data with this digest."""
    if limit is None:
        return digest
    return f"{digest}[{limit} spread]" if source.by_class else f"{digest}[:{limit}]"


class DataModule(lightning.LightningDataModule):
    """Splits and batches of one source.

    validation: number of samples (int ≥ 1) or share (below 1) of the training split to hold out, stratified where the
        task has strata (classes); 0 holds nothing out; a source may have a split of its own instead. limit_train:
        train on that many of the rest, likewise.
    augment: how training batches are changed; None leaves them as they are. No split holds what it has made.
    info: of the source, known before anything is read.
    The test split is the source's own and is never touched. Raises BadInput where these cannot be met.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        validation: float = 0,
        limit_train: int | None = None,
        name: str = "",
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        check_validation(validation)
        check_limit(limit_train)
        if batch_size < 1:
            raise BadInput(f"batch_size={batch_size}: expected at least 1")
        self.info = info_of(source, name or type(source).__name__.lower())
        if validation and source.train_is_test:
            raise BadInput(
                f"data.validation={validation}: {name or type(source).__name__} trains on its test points, "
                "so there is nothing to hold out; set data.validation=0"
            )
        if augment is not None and (refusal := augment.refusal(self.info)) is not None:
            raise BadInput(f"augment and data={name}: {refusal}; choose augment=none")
        self.source = source
        self.augment = augment
        self.name = name or type(source).__name__.lower()
        self.batch_size = batch_size
        self.validation = validation
        self.limit_train = limit_train
        self.order = EpochOrder(seed)
        self.block: int | None = None
        self._splits: dict[str, Samples] = {}
        self._placed: dict[tuple[str, torch.device], Samples] = {}

    @classmethod
    def of(cls, config: DataConfig, batch_size: int, seed: int = 0, augment: Augmentation | None = None) -> DataModule:
        """That of a configuration, not yet loaded. Raises BadInput."""
        source = config.source.build()
        return cls(source, batch_size, seed, config.validation, config.limit_train, config.name, augment)

    def prepare(self) -> None:
        """Read and split everything, once. Raises BadInput where the data are missing, damaged or not of their task."""
        if self._splits:
            return
        train, test = load_checked(self.source, self.info, str(self.name))
        splits = {"test": test}
        if self.source.own_validation:
            if self.validation:
                splits["validation"] = load_own_validation(self.source, self.info, str(self.name))
        elif count := self._held_out(len(train.target)):
            train, splits["validation"] = held_out(train, self.info.task.strata(train.target), count)
        splits["train"] = self._limited(train)
        self._splits = splits

    def setup(self, stage: str) -> None:
        """Lightning's hook, on every rank."""
        self.prepare()

    def split(self, name: str, device: torch.device | None = None) -> Samples:
        """(x, target) of "train", "validation" or "test"; x may be uint8 standing for x/255 (see `in_units`).

        device: where they shall lie, if not on the CPU; they are moved once, and stay on the CPU if they do not fit.
        Raises BadInput for a split that this data set does not have."""
        self.prepare()
        if name not in self._splits:
            raise BadInput(f"{self.name} has no {name} split, only {', '.join(sorted(self._splits))}")
        samples = self._splits[name]
        if device is None or device.type == "cpu":
            return samples
        if (name, device) not in self._placed:
            self._placed[name, device] = Samples(*placed(*samples, device))
        return self._placed[name, device]

    def example(self, count: int) -> Tensor:
        """(count, *shape) float32 in data units, the first samples as training would see them. The global generator
        stays where it is. Raises BadInput where `augment` fails, or makes samples of another shape."""
        x = self.split("train").x[:count]
        if self.augment is None:
            return in_units(x)
        name = type(self.augment).__name__
        with torch.random.fork_rng(devices=[]), refused(f"augment: {name} fails"):
            found = in_units(self.augment(x.clone()))
        if found.shape != x.shape:
            raise BadInput(f"augment: {name} gives {tuple(found.shape)} for {tuple(x.shape)}, expected the same shape")
        return found

    @property
    def has_validation(self) -> bool:
        """Whether something is held out."""
        return bool(self.validation)

    @cached_property
    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all splits: two runs with equal digests saw equal data."""
        self.prepare()
        sha = hashlib.sha256()
        for name in sorted(self._splits):
            for part in self._splits[name]:
                sha.update(f"{name} {tuple(part.shape)} {part.dtype}".encode())
                sha.update(part.contiguous().numpy().data)
        return sha.hexdigest()[:12]

    def train_dataloader(self) -> TensorBatches | Blocks:
        """Shuffled by (seed, epoch), and changed by `augment`; in blocks where `block` says of how many batches."""
        batches = TensorBatches(*self.split("train", self._device), self.batch_size, self.order, self.augment)
        return Blocks(batches, self.block) if self.block else batches

    def val_dataloader(self) -> TensorBatches | list[TensorBatches]:
        """Fixed order; an empty list where nothing is held out (limit_val_batches=0 never asks)."""
        return TensorBatches(*self.split("validation", self._device), self.batch_size) if self.has_validation else []

    def test_dataloader(self) -> TensorBatches:
        """Fixed order."""
        return TensorBatches(*self.split("test", self._device), self.batch_size)

    @property
    def _device(self) -> torch.device | None:
        """Of the process that trains; each has its own copy of the data there."""
        return None if self.trainer is None else self.trainer.strategy.root_device

    def _held_out(self, n: int) -> int:
        share = self.validation < 1
        count = max(1, round(n * self.validation)) if share and self.validation else int(self.validation)
        if count >= n:
            raise BadInput(f"data.validation={self.validation}: {self.name} has only {n} training samples")
        return count

    def _limited(self, train: Samples) -> Samples:
        if self.limit_train is None:
            return train
        if self.limit_train > len(train.target):
            raise BadInput(f"data.limit_train={self.limit_train}: expected 1 to {len(train.target)}, or null")
        chosen = stratified(self.info.task.strata(train.target), self.limit_train)
        return Samples(train.x[chosen], train.target[chosen])
