"""LyaNet's attack as its script runs it and as its text says: what the clip does, and how little is left to PGD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robode.attacks.balls import length
from robode.attacks.problem import make_problem
from robode.attacks.published import PublishedPGD, script_pgd
from robode.corruptions.noise import DRAWS, Clean, ClipOnly, PerSampleRNG
from robode.corruptions.perturbation import Batch
from robode.corruptions.protocols import DataSpace, LyaNet2022
from robode.data.batches import evaluating
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan
from robode.tasks.classification import Classification

CLASSES = Classification(("a", "b", "c", "d"))
GREY = DatasetInfo((1, 28, 28), (0.2860,), (0.3530,), (0.0, 1.0), CLASSES)
COLOUR = DatasetInfo((3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (0.0, 1.0), CLASSES)
VECTORS = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, CLASSES)
MEAN = {1: torch.tensor([0.5]), 3: torch.tensor([0.4914, 0.4822, 0.4465])}
STD = {1: torch.tensor([0.5]), 3: torch.tensor([0.2023, 0.1994, 0.2010])}
LINF, L2, STEP = 8 / 255, 127 / 255, 2 / 255
N = 23


def constants(info: DatasetInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the paper, as (C, 1, 1)."""
    return MEAN[info.shape[0]].view(-1, 1, 1), STD[info.shape[0]].view(-1, 1, 1)


def clipped(x: torch.Tensor, info: DatasetInfo) -> torch.Tensor:
    """The closed form: mean + std * clip((x - mean)/std, 0, 1)."""
    mean, std = constants(info)
    return mean + std * ((x - mean) / std).clamp(0, 1)


def scene(info: DatasetInfo) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that is smooth and not linear, images in [0, 1] whose pixels are anything, and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(N, *info.shape, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    return network, x, torch.randint(0, 4, (N,), generator=generator)


def given(info: DatasetInfo, x: torch.Tensor, labels: torch.Tensor, protocol=None) -> Batch:
    """What a perturbation of the protocol's space is given, with random numbers."""
    batch = (protocol or LyaNet2022()).batch(x, labels, None, info)
    return Batch(batch.x, labels, None, batch.bounds, PerSampleRNG((0, 0, DRAWS), range(N)), batch.decode)


def attacked(attack: PublishedPGD, info: DatasetInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """x, and x' in data units."""
    network, x, labels = scene(info)
    batch = given(info, x, labels)
    if attack.in_data_units:
        batch = Batch(x, labels, None, info.bounds, PerSampleRNG((0, 0, DRAWS), range(N)))
    with evaluating(network):
        (moved,) = attack.perturbed(network, CLASSES, batch, attack.severities)
    return x, batch.decode(moved)


@pytest.mark.parametrize("info", [GREY, COLOUR], ids=["grey", "colour"])
def test_the_clip_alone_has_a_closed_form(info):
    _, x, labels = scene(info)
    batch = given(info, x, labels)
    moved = batch.decode(ClipOnly().perturb(batch, 0.0))
    torch.testing.assert_close(moved, clipped(x, info), rtol=0, atol=1e-6)
    mean, std = constants(info)
    assert bool((moved >= mean - 1e-6).all()) and bool((moved <= mean + std + 1e-6).all())
    assert float((moved - x).abs().max()) > 0.4  # black becomes mid-grey


@pytest.mark.parametrize("info", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_radius_the_script_leaves_the_clipped_image(info, norm):
    x, moved = attacked(PublishedPGD(0.0, norm), info)
    torch.testing.assert_close(moved, clipped(x, info), rtol=0, atol=1e-6)


@pytest.mark.parametrize("info", [GREY, COLOUR], ids=["grey", "colour"])
def test_the_max_norm_script_moves_pixels_by_eps_std_about_the_clipped_image(info):
    x, moved = attacked(PublishedPGD(LINF), info)
    std = constants(info)[1]
    change = ((moved - clipped(x, info)) / std).abs()
    assert LINF * 0.99 < float(change.max()) <= LINF * (1 + 1e-4)
    z = (x - constants(info)[0]) / std
    frozen = (z < -LINF) | (z > 1 + LINF)  # the clip takes back whatever the ball allows
    assert 0.3 < float(frozen.double().mean()) and float(change[frozen].max()) < 1e-5


@pytest.mark.parametrize("info", [GREY, COLOUR], ids=["grey", "colour"])
def test_the_l2_script_ends_at_the_clipped_image_but_for_a_small_share_of_a_step(info):
    """e' <= rho (e + step) for the distance e to clip(z): every projection shrinks the step by rho, because the clip
    has moved z far beyond eps; the first iterate is one step from z."""
    x, moved = attacked(PublishedPGD(L2, "l2"), info)
    mean, std = constants(info)
    z, z_moved = (x - mean) / std, (moved - mean) / std
    far = length(z - z.clamp(0, 1), "l2")
    assert float(far.min()) > 10 * L2
    rho = L2 / (far - STEP)
    bound = STEP * (rho / (1 - rho) + rho**9)
    found = length(z_moved - z.clamp(0, 1), "l2")
    assert bool((found <= bound + 2e-6).all()) and float(found.max()) > 1e-5
    assert float(bound.max()) < 1e-3 * L2, "the whole attack is less than a thousandth of its budget"


def test_images_inside_the_clip_are_attacked_as_anywhere_else():
    """Without a distance to the clip nothing holds the script back: it travels steps * step_size, short of eps."""
    network, x, labels = scene(GREY)
    inside = 0.5 + 0.5 * (0.3 + 0.4 * x)
    batch = given(GREY, inside, labels)
    (moved,) = PublishedPGD(L2, "l2").perturbed(network, CLASSES, batch, [L2])
    assert float(length(moved - batch.x, "l2").min()) > 0.9 * 10 * STEP
    assert float(length(moved - batch.x, "l2").max()) <= 10 * STEP * (1 + 1e-4) < L2


def test_the_script_climbs_the_loss_of_the_clipped_image():
    network, x, labels = scene(COLOUR)
    batch = given(COLOUR, x, labels)
    (moved,) = PublishedPGD(LINF).perturbed(network, CLASSES, batch, [LINF])
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(network(each), labels, reduction="none")
            for each in (clipped(x, COLOUR), batch.decode(moved))
        )
    assert bool((after > before).all())


def test_the_start_of_an_image_is_its_own():
    network, x, labels = scene(GREY)
    attack, whole = PublishedPGD(LINF, steps=1, step_size=1e-6), given(GREY, x, labels)
    (moved,) = attack.perturbed(network, CLASSES, whole, [LINF])
    part = given(GREY, x[5:9], labels[5:9])
    part = Batch(part.x, part.targets, None, part.bounds, PerSampleRNG((0, 0, DRAWS), range(5, 9)), part.decode)
    (alone,) = attack.perturbed(network, CLASSES, part, [LINF])
    torch.testing.assert_close(alone, moved[5:9], rtol=0, atol=3e-6)
    other = Batch(whole.x, labels, None, whole.bounds, PerSampleRNG((1, 0, DRAWS), range(N)), whole.decode)
    (elsewhere,) = attack.perturbed(network, CLASSES, other, [LINF])
    assert float((elsewhere - moved).abs().max()) > LINF


def test_a_sample_whose_gradient_is_far_below_the_divisor_stays():
    def nearly_flat(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([1e-12 * x.flatten(1).sum(1), torch.zeros(len(x))], dim=1)

    x, labels = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 0])
    moved = script_pgd(make_problem(nearly_flat, x, labels, eps=0.5, norm="l2", bounds=(0.0, 1.0)))
    assert 0 < float((moved - x).abs().max()) < 1e-5
    steep = make_problem(lambda x: 1e12 * nearly_flat(x), x, labels, eps=0.5, norm="l2", bounds=(0.0, 1.0))
    assert float(length(script_pgd(steep) - x, "l2").min()) > 9 * STEP


@pytest.mark.parametrize(("norm", "eps"), [("linf", LINF), ("l2", L2)])
def test_the_text_stays_within_eps_in_data_units(norm, eps):
    x, moved = attacked(PublishedPGD(eps, norm, "text"), COLOUR)
    assert 0 < float(length(moved - x, norm).max()) <= eps * (1 + 1e-5)
    assert 0 <= float(moved.min()) and float(moved.max()) <= 1


def test_what_cannot_travel_far_enough_says_so_and_is_run_all_the_same(recwarn):
    short = "step_size=0.00784314: 10 steps travel 0.0784314, less than the ball's width 0.996078"
    assert PublishedPGD(L2, "l2", "text").warning((0.0, 1.0)) == short
    assert PublishedPGD(LINF, "linf", "text").warning((0.0, 1.0)) is None
    attacked(PublishedPGD(L2, "l2", "text"), GREY)
    assert not recwarn.list


@pytest.mark.parametrize(("bad", "says"), [
    ({"variant": "foo"}, "variant=foo: expected one of script, text"),
    ({"norm": "l1"}, "norm=l1: expected one of linf, l2"),
    ({"eps": [0.1, 0.2]}, "eps: expected one number"),
    ({"step_size": 0}, "step_size=0: expected a number above 0"),
    ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
])  # fmt: skip
def test_settings_that_make_no_sense(bad, says):
    with pytest.raises(BadInput) as error:
        PublishedPGD(**bad)
    assert str(error.value).startswith(says)


def test_vectors_have_no_bounds_to_clip_to():
    assert "speaks of images only" in PublishedPGD().refusal(None)
    assert PublishedPGD(variant="text").refusal(None) is None
    with pytest.raises(BadInput, match="protocol=lyanet_2022: speaks of normalised images only"):
        LyaNet2022().bounds(VECTORS)


@pytest.mark.parametrize(("bad", "says"), [
    ({"mean": [0.5, 0.5]}, "protocol.mean: expected 1 numbers, one a channel, got 2"),
    ({"std": [0.0]}, r"protocol.std=\[0.0\]: expected finite numbers above 0"),
    ({"mean": [float("nan")]}, "protocol.mean="),
])  # fmt: skip
def test_constants_that_are_none(bad, says):
    with pytest.raises(BadInput, match=says):
        LyaNet2022(**bad).bounds(GREY)


def test_images_of_two_channels_need_constants_of_their_own():
    info = DatasetInfo((2, 4, 4), (0.5, 0.5), (0.5, 0.5), (0.0, 1.0), CLASSES)
    with pytest.raises(BadInput, match="protocol.mean: expected 2 numbers"):
        LyaNet2022().bounds(info)
    assert LyaNet2022([0.1, 0.2], [1.0, 2.0]).bounds(info) == (0.0, 1.0)
    x = torch.rand(3, 2, 4, 4)
    moved = LyaNet2022([0.1, 0.2], [1.0, 2.0]).encode(x, info)
    torch.testing.assert_close(moved[:, 1], (x[:, 1] - 0.2) / 2)


def test_rows_of_script_and_text_side_by_side():
    """The clip is asked for by the suite, and the protocol does not add it again. Rows of the script are no attacks of
    a size in data units, so no certificate and no order is about them."""
    network, x, labels = scene(GREY)
    suite = {
        "clean": Clean(), "clip_only": ClipOnly(), "pgd_script_linf": PublishedPGD(LINF),
        "pgd_script_l2": PublishedPGD(L2, "l2"), "pgd_text_linf": PublishedPGD(LINF, "linf", "text"),
    }  # fmt: skip
    rows = evaluate_suite(network, x, labels, Plan(suite, LyaNet2022(), GREY, repeats=2))
    assert [row["perturbation"] for row in rows] == list(suite)
    units = {row["perturbation"]: (row["space"], row["severity_unit"]) for row in rows}
    assert units["pgd_script_linf"] == ("normalised", "eps_of_script") and units["pgd_text_linf"] == ("data", "eps")
    scores = {row["perturbation"]: row["score"] for row in rows}
    assert scores["pgd_script_l2"] == scores["clip_only"], "the L2 column of the script is the error on clipped images"
    without = evaluate_suite(network, x, labels, Plan({"s": PublishedPGD(LINF)}, LyaNet2022(), GREY, repeats=1))
    assert [row["perturbation"] for row in without] == ["pgd_script_linf", "clip_only"]
    assert without[1]["evaluation"] == next(row["evaluation"] for row in rows if row["perturbation"] == "clip_only")


def test_what_the_script_gets_wrong_and_right_is_counted_at_the_attacked_image_alone():
    """An image that is wrong as it is and right once it is clipped is right for the script."""

    class Dark(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            brightness = x.flatten(1).mean(1)
            return torch.stack([brightness, 0.3 + 0 * brightness], dim=1)

    info = DatasetInfo((1, 4, 4), (0.5,), (0.5,), (0.0, 1.0), Classification(("bright", "dark")))
    suite = {"clean": Clean(), "script": PublishedPGD(LINF), "text": PublishedPGD(LINF, "linf", "text")}
    x, labels = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    rows = evaluate_suite(Dark(), x, labels, Plan(suite, LyaNet2022(), info, repeats=1))
    assert {row["perturbation"]: row["score"] for row in rows} == {
        "clean": 0.0, "pgd_script_linf": 1.0, "pgd_text_linf": 0.0, "clip_only": 1.0,
    }  # fmt: skip


def test_in_data_space_the_script_is_an_attack_on_images_that_lie_in_the_bounds():
    network, x, labels = scene(GREY)
    batch = given(GREY, x, labels, DataSpace())
    (moved,) = PublishedPGD(LINF).perturbed(network, CLASSES, batch, [LINF])
    assert 0.9 * LINF < float(length(moved - x, "linf").max()) <= LINF * (1 + 1e-5)
