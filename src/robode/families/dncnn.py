"""DnCNN: x minus what a convolutional network with batch normalisation takes for noise. Nothing is certified of it.

Source: Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image denoising",
IEEE Trans. Image Process. 26, 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robode.backbones import initialise_
from robode.errors import BadInput
from robode.families.layers import LayersAlone
from robode.families.resnet18 import expect_images, several
from robode.integrators.integrator import Integrator
from robode.ode.step import Step

Shape = tuple[int, ...]
START = 0.1  # of He's weights, for the last layer: with all of them it begins by adding noise


class Layer(Step):
    """On states (x, z), x the c channels of the picture and z the features: x -> (x, net(x)) of the first layer,
    (x, z) -> (x, net(z)) of an inner one, (x, z) -> x - net(z) of the last."""

    between_stages = True

    def __init__(self, net: nn.Module, c: int, *, first: bool = False, last: bool = False):
        self.net, self.c, self.first, self.last = net, c, first, last

    def __call__(self, y: Tensor) -> Tensor:
        x, z = y[:, : self.c], y if self.first else y[:, self.c :]
        found: Tensor = self.net(z)
        return x - found if self.last else torch.cat([x, found], 1)


class DnCNN(LayersAlone):
    """depth 3x3 convolutions with zero padding, width -> hidden -> ... -> hidden -> width channels, ReLU behind all but
    the last one, and batch normalisation before it behind all but the first and the last: x minus their answer. Of
    pictures of every size. As published: depth=17 or 20, hidden=64.

    width: channels of the picture. Property: none; batch normalisation and the skip are certified nowhere.

    Raises:
        BadInput: fewer than two layers; in training, a batch of one sample.
    """

    def __init__(
        self, width: int, depth: int, integrator: Integrator, step: float | str = "auto", horizon: float | None = None,
        *, hidden: int = 32,
    ):  # fmt: skip
        super().__init__(width, depth, integrator, step, horizon)
        if depth < 2 or hidden < 1:
            raise BadInput(f"depth and model.hidden: expected depth >= 2 and hidden >= 1, got {depth} and {hidden}")
        inner = (
            nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
            for _ in range(depth - 2)
        )
        first = nn.Sequential(nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU())
        last = nn.Conv2d(hidden, width, 3, padding=1)
        self.layers = nn.ModuleList([first, *inner, last])
        for layer in self.layers:
            initialise_(layer)
        with torch.no_grad():
            last.weight.mul_(START)

    def build(self, shape: Shape) -> Shape:
        expect_images("dncnn", shape, self.width)
        return shape

    def enter(self, y: Tensor) -> Tensor:
        several("dncnn", self.training, y)
        return y

    def steps(self, context: Tensor | None = None) -> list[Step]:
        last = self.depth - 1
        return [Layer(net, self.width, first=j == 0, last=j == last) for j, net in enumerate(self.layers)]
