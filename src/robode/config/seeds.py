"""`seeds=10`: several runs from one configuration that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig

from robode.config.instantiate import to_plain
from robode.errors import BadInput


def chosen(seeds: Any) -> list[int]:
    """A list of seeds, or 1 … n for a number n. Raises `BadInput`."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        return list(range(1, seeds + 1))
    listed = list(seeds) if isinstance(seeds, Sequence) and not isinstance(seeds, str) else []
    if not listed or not all(type(seed) is int and 0 <= seed < 2**32 for seed in listed):
        raise BadInput(f"seeds={seeds}: expected how many (seeds=3: 1, 2, 3) or which (seeds=[1,5]), or null for one")
    return list(dict.fromkeys(listed))


def one_each(cfg: DictConfig) -> list[DictConfig]:
    """The configurations of the separate runs; `cfg` itself where it names no `seeds`."""
    if cfg.get("seeds") is None:
        return [cfg]
    configs = []
    for seed in chosen(to_plain(cfg)["seeds"]):
        alone = deepcopy(cfg)
        alone.seed, alone.seeds = seed, None
        configs.append(alone)
    return configs
