"""The margin losses against sums written out, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robode.data.motion import Motion
from robode.errors import BadInput
from robode.objectives.margin import MarginCrossEntropy, MarginHinge

LOGITS = torch.tensor([[2.0, 0.5, 1.9], [0.0, -1.0, 3.0], [0.2, 0.1, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 2])


def value(loss: Any, logits: Tensor = LOGITS, labels: Tensor = LABELS) -> Tensor:
    (found,) = loss(nn.Identity(), logits, labels).values()
    assert isinstance(found, Tensor)
    return found


def test_hinge_is_the_sum_over_the_other_classes() -> None:
    expected = 0.0
    for y, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        expected += sum(max(0.0, 0.5 - (y[label] - y[j])) for j in range(3) if j != label)
    assert float(value(MarginHinge(0.5))) == pytest.approx(expected / 3)
    assert list(MarginHinge(0.5)(nn.Identity(), LOGITS, LABELS)) == ["margin_hinge"]


def test_hinge_pulls_only_at_samples_without_the_margin() -> None:
    logits = LOGITS.clone().requires_grad_()
    value(MarginHinge(0.05), logits).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad[0].abs().max()) == 0  # 2.0 leads by 0.1
    assert logits.grad[1].tolist() == pytest.approx([-1 / 3, 0, 1 / 3])


def test_cross_entropy_with_a_handicap_is_the_one_written_out() -> None:
    eps, t, expected = 0.3, 0.25, 0.0
    for y, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        moved = [(z - (math.sqrt(2) * eps if j == label else 0)) / t for j, z in enumerate(y)]
        expected += t * (math.log(sum(math.exp(z) for z in moved)) - moved[label])
    assert float(value(MarginCrossEntropy(eps, t))) == pytest.approx(expected / 3)
    assert list(MarginCrossEntropy()(nn.Identity(), LOGITS, LABELS)) == ["margin_cross_entropy"]


def test_without_handicap_at_temperature_one_it_is_cross_entropy() -> None:
    assert float(value(MarginCrossEntropy(0.0, 1.0))) == pytest.approx(
        float(nn.functional.cross_entropy(LOGITS, LABELS))
    )


def test_at_low_temperature_it_is_the_largest_lack_of_margin() -> None:
    lack = [max([0.0] + [math.sqrt(2) * 0.3 - (y[k] - y[j]) for j in range(3) if j != k])
            for y, k in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]  # fmt: skip
    assert float(value(MarginCrossEntropy(0.3, 1e-4))) == pytest.approx(sum(lack) / 3, abs=1e-3)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "big", True, None])
def test_impossible_numbers_name_their_key(bad: Any) -> None:
    with pytest.raises(BadInput, match="objective.margin_hinge.margin"):
        MarginHinge(bad)
    with pytest.raises(BadInput, match="objective.margin_cross_entropy.offset"):
        MarginCrossEntropy(offset=bad)
    with pytest.raises(BadInput, match="objective.margin_cross_entropy.temperature"):
        MarginCrossEntropy(temperature=bad)


def test_zero_is_no_margin_and_no_temperature_but_an_offset() -> None:
    with pytest.raises(BadInput, match="margin: expected a number > 0, got 0"):
        MarginHinge(0)
    with pytest.raises(BadInput, match="temperature: expected a number > 0, got 0"):
        MarginCrossEntropy(temperature=0)
    assert MarginCrossEntropy(offset=0).offset == 0


IMAGES = torch.rand(300, 2, 8, 6, generator=torch.Generator().manual_seed(1))


def test_without_motion_images_and_generator_stay_as_they_are() -> None:
    before = torch.get_rng_state()
    assert Motion()(IMAGES) is IMAGES
    assert torch.equal(torch.get_rng_state(), before)


def test_a_whole_shift_moves_pixels_and_a_turn_keeps_the_centre() -> None:
    spot = torch.zeros(400, 1, 7, 9)
    spot[:, :, 3, 4] = 1
    torch.manual_seed(3)
    shifted = Motion(shift=2)(spot)
    torch.testing.assert_close(shifted.sum((1, 2, 3)), torch.ones(400))  # nothing leaves a spot so far inside
    weights = shifted[:, 0]
    rows = (weights.sum(2) * torch.arange(7)).sum(1) - 3
    columns = (weights.sum(1) * torch.arange(9)).sum(1) - 4
    for moved in (rows, columns):
        assert float(moved.abs().max()) <= 2 + 1e-4 and float(moved.abs().max()) > 1.8
        assert abs(float(moved.mean())) < 0.2
    turned = Motion(rotation=90, zoom=0.0)(spot)
    torch.testing.assert_close(turned[:, 0, 3, 4], torch.ones(400), atol=1e-5, rtol=0)


def test_turns_are_rigid_where_images_are_not_square() -> None:
    """A spot two pixels from the centre stays two pixels from it, in whatever direction it went."""
    spot = torch.zeros(200, 1, 9, 15)
    spot[:, :, 4, 9] = 1
    torch.manual_seed(5)
    turned = Motion(rotation=180)(spot)[:, 0]
    total = turned.sum((1, 2))
    rows = (turned.sum(2) * torch.arange(9)).sum(1) / total - 4
    columns = (turned.sum(1) * torch.arange(15)).sum(1) / total - 7
    assert float((torch.hypot(rows, columns) - 2).abs().max()) < 0.25
    assert float(rows.abs().max()) > 1.8  # some by a right angle


def test_a_zoom_changes_sizes_both_ways() -> None:
    square = torch.zeros(200, 1, 20, 20)
    square[:, :, 6:14, 6:14] = 1
    torch.manual_seed(6)
    area = Motion(zoom=0.25)(square).sum((1, 2, 3)) / 64
    assert 0.5 < float(area.min()) < 0.62 and 1.4 < float(area.max()) < 1.6


@pytest.mark.parametrize("make", [MarginHinge, MarginCrossEntropy])
def test_the_losses_see_moved_images(make: Any) -> None:
    torch.manual_seed(2)
    expected = value(make(), Motion(10, 0.1, 1)(IMAGES).flatten(1), torch.zeros(300).long())
    torch.manual_seed(2)

    def flat(x: Tensor) -> Tensor:
        return x.flatten(1)

    (found,) = make(rotation=10, zoom=0.1, shift=1)(flat, IMAGES, torch.zeros(300).long()).values()
    assert torch.equal(found, expected)


def test_motions_that_make_no_sense() -> None:
    with pytest.raises(BadInput, match="objective.margin_hinge.rotation: expected a number >= 0, got -1"):
        MarginHinge(rotation=-1)
    with pytest.raises(BadInput, match="objective.margin_cross_entropy.zoom: expected a share below 1, got 1"):
        MarginCrossEntropy(zoom=1)
    with pytest.raises(BadInput, match="expected images, got samples"):
        MarginHinge(shift=1)(nn.Identity(), LOGITS, LABELS)
