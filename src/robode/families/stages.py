"""What flows of images in stages share: how their layers are spread over the stages, and the mean over pixels behind
the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robode.errors import BadInput
from robode.ode.step import Step


@dataclass(frozen=True)
class PixelMean(Step):
    """The mean over the pixels: (B, c, H, W) -> (B, c, 1, 1). rescaled: times sqrt(H W), a map of norm 1."""

    rescaled: bool = False
    between_stages = True

    def __call__(self, y: Tensor) -> Tensor:
        mean = y.mean((2, 3), keepdim=True)
        return mean * (y.shape[2] * y.shape[3]) ** 0.5 if self.rescaled else mean

    def lipschitz(self) -> float:
        return 1.0


def spread(key: str, depth: int, stages: int, given: Sequence[int] | None) -> list[int]:
    """How many of the layers each stage has: the numbers that are given, or as equal as possible, later stages first.

    Raises:
        BadInput: fewer layers than stages, or numbers that are no layers of so many stages or do not add up to depth;
        it names model.key.
    """
    if given is None:
        if depth < stages:
            raise BadInput(f"depth: expected at least one layer for each of model.stages={stages}, got {depth}")
        return [depth // stages + (k >= stages - depth % stages) for k in range(stages)]
    if len(given) != stages or sum(given) != depth or any(type(count) is not int or count < 1 for count in given):
        raise BadInput(
            f"model.{key}: expected null or {stages} whole numbers >= 1 (model.stages) that add up to depth={depth}, "
            f"got {list(given)}"
        )
    return list(given)
