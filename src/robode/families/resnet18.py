"""ResNet-18 in this house's parts: encoder=stem, basic blocks in stages, the mean over pixels, head=linear.

Source: He, Zhang, Ren, Sun, Deep residual learning for image recognition, 2016, Table 1 (18 layers).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from robode.backbones import stages as stages_of
from robode.errors import BadInput
from robode.families.layers import LayersAlone
from robode.families.stages import PixelMean, spread
from robode.integrators.integrator import Integrator
from robode.ode.step import Chain, Step

MOST_STAGES = 6
Shape = tuple[int, ...]


class Block(Step):
    """y -> relu(s(y) + F(y)), F two 3x3 convolutions with batch normalisation; s the identity or, where the block leads
    into a stage, a 1x1 convolution with stride 2."""

    def __init__(self, block: BasicBlock):
        self.block = block
        self.between_stages = block.stride > 1

    def __call__(self, y: Tensor) -> Tensor:
        found: Tensor = self.block(y)
        return found


class ResNet18(LayersAlone):
    """depth basic blocks, then the mean over pixels: (B, width, H, W) -> (B, 2^(stages-1) width, 1, 1).

    stages: each has twice the channels of the one before and half its sides. blocks: of each stage, adding up to depth;
    null = as equal as possible, later stages first (depth=8, stages=4: 2, 2, 2, 2). With width=64 and the stem
    `imagenet` it is torchvision's resnet18. Property: none; batch normalisation is certified nowhere.

    Raises:
        BadInput: numbers of stages and blocks that make no sense; in training, a batch of one sample.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        stages: int = 4,
        blocks: Sequence[int] | None = None,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        self.channels = channels_of(width, stages)
        self.blocks = nn.ModuleList(stages_of(width, spread("blocks", depth, stages, blocks)))

    def build(self, shape: Shape) -> Shape:
        expect_images("resnet18", shape, self.width)
        return (self.channels[-1], 1, 1)

    def enter(self, y: Tensor) -> Tensor:
        several("resnet18", self.training, y)
        return y

    def steps(self, context: Tensor | None = None) -> list[Step]:
        """The mean over pixels belongs to the last block."""
        found: list[Step] = [Block(block) for block in self.blocks]
        return [*found[:-1], Chain([found[-1], PixelMean()])]


def channels_of(width: int, stages: int) -> list[int]:
    """Of each stage: twice as many as in the one before. Raises `BadInput` for a number of stages that is none, or
    whose channels no machine could hold."""
    if type(stages) is not int or not 1 <= stages <= MOST_STAGES:
        raise BadInput(f"model.stages: expected a whole number from 1 to {MOST_STAGES}, got {stages}")
    return [width * 2**stage for stage in range(stages)]


def expect_images(model: str, shape: Shape, width: int) -> None:
    """Raises `BadInput` for a first state that is no image of so many channels."""
    if len(shape) != 3:
        raise BadInput(f"model={model}: expected images, got vectors; choose other data, or another model")
    if shape[0] != width:
        raise BadInput(f"model.width: expected the channels of the encoded images, {shape[0]}, got {width}")


def several(model: str, training: bool, y: Tensor) -> None:
    """Raises `BadInput` for a batch of one sample in training: batch normalisation compares samples."""
    if training and len(y) == 1:
        raise BadInput(
            f"batch_size: model={model} normalises over the samples of a batch, and got a batch of 1 (the last one of "
            "an epoch is what is left); choose one that leaves more than one"
        )
