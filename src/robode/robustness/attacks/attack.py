"""What all attacks of a suite have in common: they go from small eps to large and keep what has fallen."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.robustness.attacks.balls import INSIDE
from robode.robustness.attacks.losses import fallen
from robode.robustness.certificates import Certified
from robode.robustness.corruptions import Batch, Perturbation
from robode.robustness.levels import UPPER, check_count, noise_levels


@dataclass(frozen=True)
class Found:
    """What was found for one batch and one network at one eps."""

    network: nn.Module
    weights: tuple[int, ...]  # torch's counters of changes in place
    x: Tensor
    eps: float
    moved: Tensor

    @classmethod
    def at(cls, network: nn.Module, x: Tensor, eps: float, moved: Tensor) -> Found:
        """For the weights of the moment."""
        return cls(network, _versions(network), x, eps, moved)

    def about(self, network: nn.Module, x: Tensor) -> bool:
        return self.network is network and self.x is x and self.weights == _versions(network)


def _versions(network: nn.Module) -> tuple[int, ...]:
    return tuple(p._version for p in network.parameters())


class Attack(Perturbation):
    """An attack within eps, one or more, in data units. The eps are taken from small to large: what has fallen at a
    smaller one of the list is kept, so that the curve cannot rise. Each eps gets the same random numbers.
    """

    severity_unit = "eps"
    in_data_units = True
    attacks = True
    least_classes = 2

    def __init__(self, name: str, eps: float | Sequence[float], norm: str, suite: str, **counts: int) -> None:
        self.name, self.norm = f"{name}_{norm}", norm
        key = f"suite.{self.name}"
        super().__init__(suite, tuple(sorted(noise_levels(f"{key}.eps", eps, UPPER["eps"]))))
        for what, count in counts.items():
            check_count(f"{key}.{what}", count)
            setattr(self, what, count)
        self._last: Found | None = None
        self._proof: Certified | None = None

    def spare_certified(self) -> None:
        """From now on do not attack samples that are certified at eps: they cannot fall, and are left as they are.

        Raises:
            BadInput: a norm whose ball is not inside that of the 2-norm, which certificates are about.
        """
        if self.norm not in INSIDE:
            raise BadInput(f"suite.{self.name}.spare_certified: expected norm {' or '.join(INSIDE)}, got {self.norm}")
        self._proof, self.spares_certified = Certified(list(self.severities)), True  # in the digest of the evaluation

    @abstractmethod
    def find(self, network: nn.Module, x: Tensor, labels: Tensor, **where: Any) -> Tensor:
        """x' like x. where: eps (a number), norm, bounds, draws."""

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        last = self._last
        if last is None or last.eps > severity or not last.about(network, batch.x):
            last = Found.at(network, batch.x, 0.0, batch.x.detach().clone())
        for eps in sorted({*self.severities, severity}):
            if last.eps < eps <= severity:
                last = Found.at(network, batch.x, eps, self._further(network, batch, eps, last.moved))
        self._last = last
        return last.moved

    def _further(self, network: nn.Module, batch: Batch, eps: float, before: Tensor) -> Tensor:
        """x' within eps, where `before`, of a smaller eps, is still answered correctly; elsewhere that."""
        with torch.no_grad():
            standing = ~fallen(network(before), batch.labels)
            if self._proof is not None:
                standing &= ~self._proof.right(network, batch.x, batch.labels, eps)
            left = torch.nonzero(standing)[:, 0]
        if not len(left):
            return before
        draws = None if batch.draws is None else copy.deepcopy(batch.draws).of(left)
        where = {"eps": eps, "norm": self.norm, "bounds": batch.bounds, "draws": draws}
        return before.index_copy(0, left, self.find(network, batch.x[left], batch.labels[left], **where))
