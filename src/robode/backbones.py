"""Residual networks of images in the parts that others are made of: a stem, and stages of basic blocks.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, Table 1 (18 layers). The blocks are
torchvision's. With width 64 and the stem `imagenet`, stem, stages, mean over pixels and a linear layer are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn
from torchvision.models.resnet import BasicBlock

from robode.errors import BadInput

STEMS = ("imagenet", "small")
Module = TypeVar("Module", bound=nn.Module)


def stem(kind: str, channels: int, width: int) -> nn.Sequential:
    """From images (B, channels, H, W) to `width` channels, by a convolution, batch normalisation and ReLU.

    kind: imagenet (7x7, stride 2, then a 3x3 maximum with stride 2: a quarter of the sides) or small (3x3, stride 1,
    for images of some 30 pixels). Raises `BadInput` for another kind.
    """
    if kind not in STEMS:
        raise BadInput(f"stem: expected one of {', '.join(STEMS)}, got {kind}")
    side, stride, padding = (7, 2, 3) if kind == "imagenet" else (3, 1, 1)
    convolution = nn.Conv2d(channels, width, side, stride, padding, bias=False)
    found = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
    if kind == "imagenet":
        found.append(nn.MaxPool2d(3, 2, 1))
    return initialise_(found)


def stages(width: int, blocks: Sequence[int] = (2, 2, 2, 2)) -> list[BasicBlock]:
    """Basic blocks, so many in each stage; a stage has twice the channels of the one before, which begin with `width`,
    and half the sides: its first block has stride 2 and a 1x1 convolution beside it."""
    found, before = [], width
    for stage, count in enumerate(blocks):
        for place in range(count):
            after, stride = width * 2**stage, 2 if stage and not place else 1
            beside = None
            if stride > 1 or before != after:
                beside = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            found.append(initialise_(BasicBlock(before, after, stride, beside)))
            before = after
    return found


def initialise_(module: Module) -> Module:
    """He's normal weights for convolutions (by their outputs), and batch normalisations that do nothing yet."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")
    return module
