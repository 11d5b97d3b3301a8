"""What every augmentation promises, for each kind of data that it does not refuse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.data.augment import Augmentation
from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.samples import check_values
from robode.errors import BadInput

COUNT = 12


@dataclass(frozen=True)
class Augmented:
    """An augmentation, and a description of data that it takes."""

    augment: Augmentation
    info: DatasetInfo

    def batches(self) -> list[Tensor]:
        """Bytes where the data have bounds, and float32: (COUNT, *shape) each, changed from the same state of the
        global generator."""
        given = torch.rand(COUNT, *self.info.shape, generator=torch.Generator().manual_seed(7))
        found = []
        for x in (given, *([(given * 255).byte()] if self.info.bounds else [])):
            torch.manual_seed(0)
            found.append(self.augment(x.clone()))
        return found


def samples_stay_samples_of_the_data(case: Augmented) -> list[str]:
    """Of their shape, bytes or float32, finite, within the bounds of the data."""
    found, expected = [], (COUNT, *case.info.shape)
    for x in case.batches():
        if tuple(x.shape) != expected or x.dtype not in (torch.uint8, torch.float32):
            found.append(f"a batch {expected} becomes {tuple(x.shape)} of {x.dtype}")
            continue
        try:
            check_values(in_units(x), case.info.bounds, "after augmentation")
        except BadInput as error:
            found.append(str(error))
    return found


def draws_come_from_the_global_generator(case: Augmented) -> list[str]:
    """Else a resumed run would draw others than one that was never stopped."""
    same = all(torch.equal(a, b) for a, b in zip(case.batches(), case.batches(), strict=True))
    return [] if same else ["the same state of torch's generator gives other samples a second time"]


CONTRACTS = (samples_stay_samples_of_the_data, draws_come_from_the_global_generator)
