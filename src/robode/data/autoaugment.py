"""AutoAugment (Cubuk, Zoph, Mane, Vasudevan, Le 2019), as torchvision has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment as OfImage
from torchvision.transforms.v2 import AutoAugmentPolicy

from robode.data.augment import Augmentation
from robode.data.info import DatasetInfo
from robode.errors import BadInput

POLICIES = tuple(each.value for each in AutoAugmentPolicy)


class AutoAugment(Augmentation):
    """To each image one of 25 pairs of operations (shear, shift, turn, colours, contrast, sharpness, …), each of which
    acts with a probability and a strength of its own; black where an image was moved away.

    policy: cifar10, imagenet or svhn, the data on which the pairs were found. They work on bytes: float images are
    rounded to 256 levels. torchvision draws once a call, so images are changed one after the other: about 0.2 ms each
    on one core, 10 s for an epoch of CIFAR-10. Its operations on tensors and on PIL images, which published scripts
    have, give the same bytes for 4 images in 5, and bytes that differ by more than 1 at one pixel in 200.

    Raises:
        BadInput: a policy that there is not.
    """

    def __init__(self, policy: str = "cifar10") -> None:
        if policy not in POLICIES:
            raise BadInput(f"augment.policy={policy}: choose one of: {', '.join(POLICIES)}")
        self.of_image = OfImage(AutoAugmentPolicy(policy))

    def refusal(self, info: DatasetInfo) -> str | None:
        if len(info.shape) == 3 and (info.bounds != (0.0, 1.0) or info.shape[0] not in (1, 3)):
            return f"expected grey or colour images in [0, 1], got samples of shape {info.shape} in {info.bounds}"
        return super().refusal(info)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), uint8 standing for x/255 or float in [0, 1] -> uint8."""
        pixels = x if x.dtype == torch.uint8 else (255 * x).round().to(torch.uint8)
        return torch.stack([self.of_image(image) for image in pixels])
