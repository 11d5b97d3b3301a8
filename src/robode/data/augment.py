"""How training images are changed, anew in every step: the noun, and the change that most published recipes use."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from robode.data.info import DatasetInfo
from robode.errors import BadInput


class Augmentation(ABC):
    """A random change of a training batch; targets stay as they are. Batches for validating, testing and attacking, and
    the digest of the data, never see it.

    It draws from torch's global generator of the CPU alone, which is in every checkpoint, so that a resumed run draws
    what an uninterrupted one would have drawn, and a GPU sees the images that a CPU sees.
    """

    def refusal(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for these data; None where it does."""
        return None if len(info.shape) == 3 else f"expected images, got samples of shape {info.shape}"

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, *shape), a batch of its own that may be written into, as the data set holds it: uint8 standing for
        x/255, or float32 in data units. Returns one of these, of that shape."""


class CropFlip(Augmentation):
    """A frame of `pad` pixels of 0 (black) around each image, cut to its size at a random place; then mirrored, left to
    right, with probability 1/2 if `flip`. Independent for each image, uniform over the (2 pad + 1)^2 places. What He,
    Zhang, Ren, Sun 2016 ("Deep residual learning for image recognition", section 4.2) train CIFAR-10 with.

    Raises:
        BadInput: pad is no whole number >= 0.
    """

    def __init__(self, pad: int = 4, flip: bool = True) -> None:
        if type(pad) is not int or pad < 0:
            raise BadInput(f"augment.pad={pad}: expected a whole number >= 0")
        self.pad, self.flip = pad, flip

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) of any kind of numbers -> the same."""
        count, _, height, width = x.shape
        down, right = torch.randint(2 * self.pad + 1, (2, count, 1))
        rows, columns = down + torch.arange(height), right + torch.arange(width)
        if self.flip:
            columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
        which, rows, columns = (each.to(x.device) for each in (torch.arange(count), rows, columns))
        framed = functional.pad(x, [self.pad] * 4)
        cut = framed[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
        return cut.permute(0, 3, 1, 2).contiguous()
