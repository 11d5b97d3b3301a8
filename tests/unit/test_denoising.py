"""Noisy pictures: the score, the splits, the noise, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import write_bsds500
from PIL import Image

from robode.data.bsds500 import BSDS500
from robode.data.module import DataModule
from robode.data.photographs import FILES, Photographs
from robode.data.pictures import Pictures
from robode.errors import BadInput
from robode.tasks.denoising import Denoising, psnr

TASK = Denoising(12, noise=0.1)
SMALL = {"pictures": ["china"], "size": 32, "crops": 20}


def test_psnr_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 12)).astype(np.float32)
    scores = TASK.score(torch.from_numpy(a), torch.from_numpy(b))
    for score, one, other in zip(scores.tolist(), a, b, strict=True):
        assert score == pytest.approx(metrics.peak_signal_noise_ratio(other, one, data_range=1), rel=1e-6)


def test_psnr_of_what_is_known() -> None:
    zeros = torch.zeros(1, 12)
    assert TASK.score(zeros + 0.1, zeros).item() == pytest.approx(20, rel=1e-6)
    assert TASK.score(zeros, zeros).item() == math.inf
    assert TASK.score(zeros + math.nan, zeros).item() == TASK.score(zeros + math.inf, zeros).item() == -math.inf
    assert TASK.is_better(20, 19) and TASK.worse(torch.tensor(1.0), torch.tensor(2.0)).item() == 1
    assert str(TASK.measure) == "denoising: PSNR in dB (higher is better)" and TASK.measure.text(27.34) == "27.3"


def test_a_certified_psnr_holds_for_every_output_within_the_radius_and_is_attained() -> None:
    torch.manual_seed(0)
    output, target = torch.rand(50, 12), torch.rand(50, 12)
    L, radius = 0.7, 0.3
    bound = TASK.certified(output, target, torch.full((1, 1), L, dtype=torch.float64), radius)
    away = output - target
    for direction in (torch.randn_like(away), away):
        moved = output + L * radius * direction / direction.norm(dim=1, keepdim=True)
        assert bool((TASK.score(moved, target) >= bound - 1e-5).all())
    torch.testing.assert_close(TASK.score(moved, target), bound, rtol=1e-5, atol=0)
    room = TASK.certified(output, target, torch.full((1, 1), L, dtype=torch.float64), 0.0, L * radius)
    torch.testing.assert_close(room, bound, rtol=1e-6, atol=0)
    assert TASK.certified(output, target, torch.full((1, 1), math.inf).double(), 0.1)[0] == -math.inf


def test_the_noise_is_gaussian_of_that_size_and_each_samples_own() -> None:
    data = DataModule(Photographs(**SMALL, noise=0.2), 10, 0, 0.2)
    x, target = data.split("train")
    n = (x.flatten(1) - target) / 0.2
    assert float(n.mean()) == pytest.approx(0, abs=0.02) and float(n.std()) == pytest.approx(1, abs=0.02)
    assert float(n.abs().max()) < 6 and bool((x < 0).any())  # not clipped
    assert float((n[0] * n[1]).mean().abs()) < 0.1
    noisy = psnr(x.flatten(1), target).mean()
    assert float(noisy) == pytest.approx(-20 * math.log10(0.2), abs=0.1)
    more = Photographs(**SMALL | {"crops": 40}, noise=0.2).load()[0]
    assert torch.equal(more.x[:20], x)  # more crops leave these as they are


def test_no_pixel_is_in_two_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A picture of numbers: whatever a split shows, no other one does."""
    for size in ((90, 130), (130, 90)):
        pixels = np.arange(size[0] * size[1]).reshape(size)
        picture = np.stack([pixels // 256 % 256, pixels % 256, pixels // 65536], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "numbers.png")
        monkeypatch.setattr("robode.data.photographs.where_is", lambda _: tmp_path / "numbers.png")
        source = Photographs(pictures=["china"], size=16, noise=0.0, crops=50, validation=0.25, test=0.25)
        seen = []
        for samples in (*source.load(), source.load_validation()):
            r, g, b = (samples.x * 255).round().long().unbind(1)
            seen.append(set((256 * r + g + 65536 * b).flatten().tolist()))
        train, test, validation = seen
        assert not train & test and not train & validation and not test & validation
        assert len(train) > len(test) >= 512 and len(validation) >= 512


def test_validation_is_the_sources_own_and_0_switches_it_off() -> None:
    source = Photographs(**SMALL)
    data = DataModule(source, 10, 0, 0.2)
    assert torch.equal(data.split("validation").x, source.load_validation().x) and data.has_validation
    assert len(data.split("train").target) == 20
    assert not DataModule(Photographs(**SMALL, validation=0.0), 10, 0, 0).has_validation


def test_squares_lie_side_by_side_and_are_spread() -> None:
    source = Photographs(**SMALL)
    every = source.squares("test", 40)
    region = source.regions("test")[0].pixels
    assert len(every) == (region.shape[1] // 40) * (region.shape[2] // 40)
    assert torch.equal(every[0], torch.from_numpy(region[:, :40, :40].copy()))
    some = source.squares("test", 40, 3)
    assert torch.equal(some[0], every[0]) and torch.equal(some[2], every[-1]) and len(some) == 3


def test_grey_pictures_have_one_channel() -> None:
    train, _ = Photographs(**SMALL, channels=1).load()
    assert train.x.shape == (20, 1, 32, 32) and train.target.shape == (20, 1024)


def test_the_folders_of_bsds500_are_its_splits(tmp_path: Path) -> None:
    write_bsds500(tmp_path / "BSDS500" / "data")
    source = BSDS500(str(tmp_path), size=24, crops=7, tiles=3, validation=1, noise=0.0)
    train, test = source.load()
    assert train.x.shape == (7, 3, 24, 24) and test.x.shape == (3, 3, 24, 24)
    first = np.asarray(Image.open(tmp_path / "BSDS500/data/images/val/0.jpg")).transpose(2, 0, 1)
    assert torch.equal(
        (source.load_validation().x[0] * 255).round().byte(), torch.from_numpy(first[:, :24, :24].copy())
    )


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda _: Photographs(pictures=["moon"]), "no photograph 'moon'; choose some of: china"),
        (lambda _: Photographs(pictures=[]), "expected at least one of: china"),
        (lambda _: Photographs(validation=0.8, test=0.2), "a share of each photograph that leaves some"),
        (
            lambda _: Photographs(size=200),
            "data.size=200: china has 427 x 128 pixels for test, expected at least 200 x 200; choose smaller",
        ),
        (lambda path: BSDS500(None), "data.root=None: expected the folder of BSDS500"),
        (lambda path: BSDS500(str(path / "none")), "none: expected the folder of BSDS500, with images/train"),
        (lambda path: BSDS500(str(path), size=24, validation=5), "data.validation=5: images/val has only 2 pictures"),
        (lambda path: BSDS500(str(path), size=40, validation=1), "data.size=40: 0.jpg has 50 x 30 pixels for train"),
    ],
)
def test_what_cannot_be_is_bad_input(make, expected: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_bsds500(tmp_path)
    with pytest.raises(BadInput, match=expected):
        source: Pictures = make(tmp_path)
        source.load()
        source.load_validation()


def test_a_photograph_whose_package_is_missing_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "coffee", ("scikit-image", "no_such_module", "coffee.png"))
    with pytest.raises(BadInput, match="coffee comes with scikit-image, which is not installed"):
        Photographs(pictures=["coffee"]).load()


def test_a_folder_without_pictures_and_a_damaged_picture_are_bad_input(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / "images" / name).mkdir(parents=True)
    with pytest.raises(BadInput, match="no picture in images/train, expected files .jpg"):
        BSDS500(str(tmp_path)).load()
    (tmp_path / "images" / "train" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="cannot read .*0.jpg"):
        BSDS500(str(tmp_path)).load()
