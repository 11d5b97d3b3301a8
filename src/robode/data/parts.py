"""A part of a split: the first samples, or equally spaced ones where the samples stand class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.data.info import Samples, Source


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
