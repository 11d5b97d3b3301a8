"""Encoders: from a normalised sample to the flow's first state. What `encoder=` chooses.

    encode(x) -> (y0, context)

y0 is (B, width), or (B, width, H, W) for flows whose states are pixels. context is None, or what fields that depend on
the data are bound to. An encoder may know a certified constant (`lipschitz`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from robode.backbones import stages, stem
from robode.errors import BadInput
from robode.heads import Orthonormal
from robode.linalg.convolution import conv_norm
from robode.linalg.norms import largest_eigenvalue
from robode.linalg.orthonormal import orthonormal, random_orthonormal

Shape = tuple[int, ...]


@dataclass(frozen=True)
class States:
    """The states that a flow starts from: width numbers, for a whole sample (`whole`) or for each pixel of an image;
    context: how many numbers of a sample its fields are bound to, 0 for none."""

    width: int
    whole: bool
    context: int = 0


class Encoder(nn.Module, ABC):
    """Made for samples of a shape, (d,) or (C, H, W), and a flow's states. scales: whether samples are divided by their
    standard deviation before, or only centred (a division by std multiplies every Lipschitz constant).

    Raises:
        BadInput: samples that it cannot encode, or states that it cannot make.
    """

    scales: bool = True
    affine: ClassVar[bool] = False  # True where the encoder is W x + b, which proofs over boxes of inputs rely on

    def __init__(self, shape: Shape, states: States):
        super().__init__()
        self.shape, self.states = tuple(shape), states

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The first state: normalised samples (B, *shape) -> (B, width) or (B, width, H, W)."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The first state, and what fields are bound to (None for most)."""
        return self(x), None

    def lipschitz(self, std: Tensor) -> float:
        """Certified 2-norm of x -> encoder(x / std) on samples of its shape; inf where nothing is proved."""
        return math.inf

    def needs_images(self) -> None:
        """Raises `BadInput` for vectors, and for flows on whole images."""
        if len(self.shape) != 3:
            raise BadInput(f"encoder: {type(self).__name__} expects images, got vectors; choose encoder=auto")
        if self.states.whole:
            raise BadInput(
                f"encoder: {type(self).__name__} makes a state of every pixel, and this model takes whole images as "
                "vectors; choose encoder=auto, dense or flat"
            )


class Conv(Encoder):
    """3x3 convolution, stride 1, padding 1: (B, C, H, W) -> (B, width, H, W), as in Table I of the CH-NODE paper."""

    affine = True

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        self.needs_images()
        convolution = nn.Conv2d(shape[0], states.width, kernel_size=3, padding=1)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight, self.bias, padding=1)

    def lipschitz(self, std: Tensor) -> float:
        """std goes into the kernel."""
        return float(conv_norm(self.weight.double() / std.double().reshape(1, -1, 1, 1), *self.shape[1:]))


class BoundedConv(Conv):
    """A `Conv` of certified norm <= 1.

    It starts as near to an isometry as its width allows: with width >= 9 C each of the 9 C shifted input channels gets
    a direction of its own, and every frequency keeps its length.
    """

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        with torch.no_grad():
            self.weight.copy_(random_orthonormal(states.width, 9 * shape[0]).view_as(self.weight) / 3)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Divides the kernel by its norm where that exceeds 1. Idempotent."""
        norm = conv_norm(self.weight, *self.shape[1:])
        eps = torch.finfo(self.weight.dtype).eps
        self.weight.div_(torch.where(norm > 1, norm * (1 + 4 * eps), torch.ones_like(norm)))


class Stem(Encoder):
    """The stem of a residual network, with batch normalisation: (B, C, H, W) -> (B, width, H', W').

    kind: small (the sides stay) or imagenet (a quarter of the sides), see `backbones.stem`. Raises `BadInput` for
    another.
    """

    def __init__(self, shape: Shape, states: States, kind: str = "small"):
        super().__init__(shape, states)
        self.needs_images()
        self.layers = stem(kind, shape[0], states.width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class Isometry(Encoder):
    """The numbers of a sample, and zeros: distances stay what they are."""

    affine = True

    def lipschitz(self, std: Tensor) -> float:
        """1/min std, exact."""
        return 1 / float(std.double().min())


class Augment(Isometry):
    """Zero-padding of vectors, an isometry: (B, d) -> (B, width).

    places: where the d numbers of a sample go, counted from 0; None: spread evenly from the first to the last entry, so
    that d = 2, width = 4 puts them into entries 0 and 3, as H-DNN and the double-circles script do.
    """

    positions: Tensor

    def __init__(self, shape: Shape, states: States, *, places: Sequence[int] | None = None):
        super().__init__(shape, states)
        if len(shape) != 1:
            raise BadInput("encoder=augment: expected vectors, got images; choose encoder=auto, conv, dense or flat")
        if states.width < shape[0]:
            raise BadInput(f"model.width: expected at least the data's dimension {shape[0]}, got {states.width}")
        evenly = torch.linspace(0, states.width - 1, shape[0]).round().long().tolist()
        positions = evenly if places is None else list(places)
        if len(set(positions)) != shape[0] or not all(0 <= each < states.width for each in positions):
            raise BadInput(
                f"encoder.places: expected {shape[0]} different entries of the state, 0 to {states.width - 1}, got "
                f"{positions}"
            )
        self.register_buffer("positions", torch.tensor(positions), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], self.states.width)
        return y.index_copy(1, self.positions, x)


class FlatPad(Isometry):
    """A sample as a vector, then zeros up to the width, an isometry: (B, *shape) -> (B, width)."""

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        self.zeros = states.width - math.prod(shape)
        if self.zeros < 0:
            raise BadInput(
                f"model.width: expected at least the {math.prod(shape)} numbers of a sample with encoder=identity, got "
                f"{states.width}"
            )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x.flatten(1), (0, self.zeros))


class ZeroChannels(Isometry):
    """The channels of an image, then channels of zeros up to the width, an isometry on images of every size:
    (B, C, H, W) -> (B, width, H, W). Samples are only centred, so that it is one of data units too."""

    scales = False

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        self.needs_images()
        if states.width < shape[0]:
            raise BadInput(f"model.width: expected at least the {shape[0]} channels of an image, got {states.width}")

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.states.width - x.shape[1]))


class Dense(Encoder):
    """A free dense layer on the whole sample: (B, *shape) -> (B, width). layer: whose weights it begins with."""

    affine = True
    layer: ClassVar[type[nn.Linear]] = nn.Linear

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        layer = self.layer(math.prod(shape), states.width)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.weight, self.bias)

    def lipschitz(self, std: Tensor) -> float:
        """std goes into the columns."""
        stretch = (1 / std.double()).expand(*self.shape).reshape(-1)
        return math.sqrt(float(largest_eigenvalue(self.weight.detach().double() * stretch)))


class FlatLinear(Dense):
    """A sample as a vector, then a learned projection onto fewer numbers, of norm 1: (B, *shape) -> (B, width)."""

    layer = Orthonormal

    @torch.no_grad()
    def project_(self) -> None:
        """Makes the rows orthonormal again. Idempotent."""
        self.weight.copy_(orthonormal(self.weight))


def usual_encoder(shape: Shape, states: States, bounded: bool = False) -> Encoder:
    """encoder=auto: vectors are padded with zeros; images go through a convolution or, where the flow takes whole
    images, become vectors. bounded (encoder=bounded): the same with certified norm <= 1, on samples that are only
    centred."""
    if len(shape) == 1:
        found: Encoder = Augment(shape, states)
    elif states.whole:
        found = (FlatPad if states.width >= math.prod(shape) else FlatLinear)(shape, states)
    else:
        found = (BoundedConv if bounded else Conv)(shape, states)
    found.scales = not bounded
    return found


class Control(Encoder):
    """The first state is 0; the sample enters through the context, which fields are bound to: for flows like
    `data_node`. A subclass writes `control`."""

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        if not states.context:
            raise BadInput(
                f"encoder: {type(self).__name__} gives the context that fields are bound to, and this model has none; "
                "choose model=data_node or lyanet, or encoder=auto"
            )

    @abstractmethod
    def control(self, x: Tensor) -> Tensor:
        """Normalised samples (B, *shape) -> the context (B, states.context)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.states.width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.control(x)


class ResNet18Control(Control):
    """A residual network of 18 layers, whose last linear layer gives the context: as in LyaNet.

    base: channels of its first stage, 64 as published; kind: of its stem, imagenet (as published) or small.
    """

    def __init__(self, shape: Shape, states: States, *, base: int = 64, kind: str = "imagenet"):
        super().__init__(shape, states)
        if len(shape) != 3:
            raise BadInput("encoder=resnet18: expected images, got vectors; choose encoder=mlp")
        if base < 1:
            raise BadInput(f"encoder.base: expected a whole number >= 1, got {base}")
        features = nn.Sequential(stem(kind, shape[0], base), *stages(base), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features, self.last = features, nn.Linear(8 * base, states.context)

    def control(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.features(x))
        return found


class MLPControl(Control):
    """A multi-layer perceptron with ReLU gives the context. hidden: the widths of its hidden layers."""

    def __init__(self, shape: Shape, states: States, *, hidden: Sequence[int] = (64, 64)):
        super().__init__(shape, states)
        if any(size < 1 for size in hidden):
            raise BadInput(f"encoder.hidden: expected widths >= 1, got {list(hidden)}")
        sizes = [math.prod(shape), *hidden]
        inner = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.features, self.last = nn.Sequential(nn.Flatten(), *inner), nn.Linear(sizes[-1], states.context)

    def control(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.features(x))
        return found


class Time(Encoder):
    """Samples whose last number is a time: (B, d + 1) -> the others with zeros up to the width, and the time (B, 1),
    which the flow is bound to. Raises `BadInput` for images, and for flows that are not bound to a time.
    """

    def __init__(self, shape: Shape, states: States):
        super().__init__(shape, states)
        if len(shape) != 1 or shape[0] < 2:
            raise BadInput(f"encoder=time: expected vectors whose last number is a time, got the shape {shape}")
        if states.context != 1:
            raise BadInput("encoder=time: expected a model that is bound to a time (sympflow); choose encoder=auto")
        if states.width < shape[0] - 1:
            raise BadInput(
                f"model.width: expected at least the {shape[0] - 1} numbers of a state with encoder=time, got "
                f"{states.width}"
            )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :-1], (0, self.states.width - self.shape[0] + 1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x[:, -1:]


class Generator(Encoder):
    """Samples whose last number says whether they are noise: (B, d + 1) -> (B, width), d numbers and zeros behind them.

    What is no noise (0) keeps its first d numbers. Noise (1) becomes `generate` of them, a perceptron with ReLU whose
    gradients change their sign on the way to it: what the rest of the network minimises, the generator maximises, in
    the same step of the same optimiser (Ganin, Lempitsky 2015). hidden: the widths of its hidden layers. It has no
    certified constant; that of the rest is `robode.quantities.generator.critic`'s.

    Raises:
        BadInput: images, a flow that is too narrow, or hidden widths below 1.
    """

    def __init__(self, shape: Shape, states: States, *, hidden: Sequence[int] = (64, 64)):
        super().__init__(shape, states)
        if len(shape) != 1 or shape[0] < 2:
            raise BadInput(f"encoder=generator: expected vectors whose last number says what is noise, got {shape}")
        self.size = shape[0] - 1
        if states.width < self.size:
            raise BadInput(f"model.width: expected at least the {self.size} numbers of a sample, got {states.width}")
        if any(each < 1 for each in hidden):
            raise BadInput(f"encoder.hidden: expected widths >= 1, got {list(hidden)}")
        sizes = [self.size, *hidden]
        inner = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*inner, nn.Linear(sizes[-1], self.size))

    def generate(self, noise: Tensor) -> Tensor:
        """(B, d) -> (B, d)."""
        found: Tensor = self.layers(noise)
        return found

    def forward(self, x: Tensor) -> Tensor:
        points, noise = x[:, :-1], x[:, -1:]
        made = self.generate(points)
        turned = 2 * made.detach() - made  # the same numbers, and the gradient with the other sign
        return nn.functional.pad(torch.where(noise > 0, turned, points), (0, self.states.width - self.size))
