"""Margins, vanishing gradients, and PGD that does not care how large logits are."""

import pytest
import torch
from torch import nn

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.masking.logit_scale import LogitScale
from robode.tasks.classification import Classification

INFO = DatasetInfo((4,), (0.0,) * 4, (1.0,) * 4, None, Classification(("a", "b")))
N = 200


class Points(Source):
    """Standard normal points, whose class is the sign of their first coordinate."""

    @property
    def info(self) -> DatasetInfo:
        return INFO

    def load(self) -> tuple[Samples, Samples]:
        x = torch.randn(2 * N, 4, generator=torch.Generator().manual_seed(0))
        samples = Samples(x, (x[:, 0] > 0).long())
        return Samples(*(each[:N] for each in samples)), Samples(*(each[N:] for each in samples))


class Scaled(nn.Module):
    """Logits (-size x_0, size x_0): right everywhere, and fooled exactly where |x_0| <= eps."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.size * torch.stack([-x[:, 0], x[:, 0]], dim=1)


def measured(size: float, tmp_path, **settings) -> dict[str, float]:
    quantity = LogitScale(eps=0.3, samples=N, **settings)
    rows = quantity.measure(Scaled(size), DataModule(Points(), 10, 0), tmp_path)
    assert {row["quantity"] for row in rows} == quantity.in_numbers()
    return {str(row["quantity"]).partition("/")[2].partition(" ")[0]: float(row["value"]) for row in rows}


def first() -> torch.Tensor:
    return Points().load()[1].x[:, 0].abs().double()


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_margins_are_those_of_the_network(size, tmp_path):
    found = measured(size, tmp_path)
    assert found["margin_median"] == pytest.approx(2 * size * float(first().quantile(0.5)), rel=1e-5)
    assert found["margin_95"] == pytest.approx(2 * size * float(first().quantile(0.95)), rel=1e-5)
    assert found["scale"] == pytest.approx(2 * size * float(first().square().mean().sqrt()), rel=1e-5)
    assert found["pgd"] == found["pgd_rescaled"] == pytest.approx(float((first() > 0.3).double().mean()))
    assert found["saturated"] == found["zero_gradients"] == found["small_gradients"] == 0


def test_large_logits_stop_pgd_and_not_pgd_at_an_equal_scale(tmp_path):
    """d ce/dx = 2 size / (1 + e^margin): 0 in float32 from a margin of about 104 on, and below 1e-8 long before."""
    size = 2000.0
    found, truth = measured(size, tmp_path), float((first() > 0.3).double().mean())
    assert found["pgd_rescaled"] == pytest.approx(truth) and found["pgd"] > truth + 0.1
    margins = 2 * size * first()
    assert float((margins > 106).double().mean()) <= found["zero_gradients"] <= float((margins > 80).double().mean())
    small = 2 * size / (1 + margins.exp()) < 1e-8
    assert found["small_gradients"] == pytest.approx(float(small.double().mean()), abs=0.011)
    assert found["saturated"] >= found["small_gradients"] >= found["zero_gradients"] > 0.9


def test_settings_that_make_no_sense():
    for bad in ({"eps": 0}, {"norm": "l1"}, {"samples": 0}, {"steps": 1.5}):
        with pytest.raises(BadInput, match=next(iter(bad))):
            LogitScale(**bad)
