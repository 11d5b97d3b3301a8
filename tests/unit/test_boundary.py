"""Distances from decision boundaries that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.quantities.boundary import FILE, Boundary, distances
from robode.tasks.classification import Classification

INFO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b")))


def points(count: int = 60) -> Tensor:
    return 2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0)).double() - 1


def line(x: Tensor) -> Tensor:
    return (x @ torch.tensor([0.6, 0.8], dtype=x.dtype) > 0.1).long()


def circle(x: Tensor) -> Tensor:
    return (x.norm(dim=1) > 0.7).long()


def three(x: Tensor) -> Tensor:
    """Thirds of the plane, with boundaries at the angles 0, 2 pi/3 and -2 pi/3."""
    return (torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi / 3)).floor().long() % 3


def to_three(x: Tensor) -> Tensor:
    rays = torch.tensor([[math.cos(a), math.sin(a)] for a in (0.0, 2 * math.pi / 3, -2 * math.pi / 3)]).to(x)
    along = (x @ rays.T).clamp_min(0)
    return (x[:, None] - along[..., None] * rays).norm(dim=2).amin(1)


@pytest.mark.parametrize(
    ("answers", "exact"),
    [
        (line, lambda x: (x @ torch.tensor([0.6, 0.8], dtype=x.dtype) - 0.1).abs()),
        (circle, lambda x: (x.norm(dim=1) - 0.7).abs()),
        (three, to_three),
    ],
)
def test_distances_are_those_from_lines_circles_and_corners(answers, exact) -> None:
    x = points()
    distance, nearest = distances(answers, x)
    torch.testing.assert_close(distance, exact(x), rtol=2e-4, atol=1e-6)
    assert bool((distance >= exact(x) - 1e-12).all()), "found points prove distances from above"
    torch.testing.assert_close((nearest - x).norm(dim=1), distance)
    assert bool((answers(nearest) != answers(x)).all())


def test_one_answer_everywhere_has_no_boundary() -> None:
    distance, nearest = distances(lambda x: torch.zeros(len(x), dtype=torch.long), points(3))
    assert distance.tolist() == [math.inf] * 3 and bool(nearest.isnan().all())


class Linear(nn.Module):
    """Logits (0, slope (x_0 - 0.2))."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x: Tensor) -> Tensor:
        z = self.slope * (x[:, 0] - 0.2)
        return torch.stack([torch.zeros_like(z), z], 1)


class Points(Source):
    @property
    def info(self) -> DatasetInfo:
        return INFO

    def load(self) -> tuple[Samples, Samples]:
        found = Samples(points().float(), (points()[:, 0] > 0).long())
        return found, found


def test_rows_and_arrays(tmp_path) -> None:
    """mean |grad p| = slope p (1 - p) in closed form."""
    rows = Boundary().measure(Linear(3.0), DataModule(Points(), 10, 0), tmp_path)
    found = {str(row["quantity"]): float(row["value"]) for row in rows}
    x = points().float().double()
    exact = (x[:, 0] - 0.2).abs()
    assert found["boundary_min"] == pytest.approx(float(exact.min()), rel=1e-3, abs=1e-6)
    assert found["boundary_median"] == pytest.approx(float(exact.median()), rel=1e-4)
    p = torch.sigmoid(3 * (x[:, 0] - 0.2))
    assert found["mean_gradient"] == pytest.approx(float((3 * p * (1 - p)).mean()))
    arrays = np.load(tmp_path / FILE)
    np.testing.assert_allclose(arrays["distance"], exact, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(arrays["points"], x)
    assert set(arrays.files) == {"points", "labels", "distance", "nearest"}


def test_what_it_refuses() -> None:
    images = DatasetInfo((1, 4, 4), (0.1,), (0.3,), (0.0, 1.0), INFO.task)
    assert "plane" in (Boundary().refusal(images) or "") and Boundary().refusal(INFO) is None
    with pytest.raises(BadInput, match="points=0: expected a whole number"):
        Boundary(points=0)
