"""The corruptions: who gets which noise, and whether it is the noise that scikit-image would have added."""

import numpy as np
import pytest
import torch
from skimage.util import random_noise
from torch import nn

from robode.config.config import Part
from robode.config.levels import check_repeats, check_suite
from robode.corruptions.noise import BLOCK, Clean, ClipOnly, Gaussian, SaltAndPepper, base_noise
from robode.corruptions.perturbation import Batch, Perturbation
from robode.corruptions.protocols import ChNode2022, DataSpace, EvaluationProtocol
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.tasks.classification import Classification

INFO = DatasetInfo((1, 28, 28), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("0123456789")))
NETWORK = nn.Identity()
N = 120
PIXELS = N * 28 * 28


def corrupted(perturbation: Perturbation, protocol: EvaluationProtocol, x: torch.Tensor, level: float, seed=0):
    """x' in the protocol's space."""
    noise = base_noise(perturbation.noise, seed, 0, 0, len(x), tuple(x.shape[1:]))
    batch = Batch(protocol.encode(x, INFO), torch.zeros(len(x)), noise, protocol.bounds(INFO))
    return perturbation.perturb(batch, level)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_an_image_gets_the_same_noise_in_whatever_range_it_is_asked_for(kind):
    shape = (3, 5)  # 15 entries: no multiple of anything torch vectorises by
    whole = base_noise(kind, 1, 2, 0, 3 * BLOCK + 7, shape)
    for start, stop in [
        (0, 1),
        (0, 33),
        (BLOCK - 1, BLOCK + 1),
        (7, 2 * BLOCK + 3),
        (3 * BLOCK, 3 * BLOCK + 7),
    ]:
        assert torch.equal(base_noise(kind, 1, 2, start, stop, shape), whole[start:stop])


def test_noise_differs_by_seed_repeat_kind_and_image():
    rows = [
        base_noise("normal", seed, repeat, 0, 2 * BLOCK, (40,)) for seed, repeat in [(0, 0), (1, 0), (0, 1), (10, 0)]
    ]
    rows.append(base_noise("uniform", 0, 0, 0, 2 * BLOCK, (40,)))
    assert len({tuple(row.tolist()) for row in torch.cat(rows)}) == 10 * BLOCK


def test_noise_neither_reads_nor_moves_the_global_generators():
    torch.manual_seed(0)
    np.random.seed(0)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = base_noise("normal", 0, 0, 0, 10, (4,))
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()
    torch.manual_seed(1)
    assert torch.equal(first, base_noise("normal", 0, 0, 0, 10, (4,)))


def test_base_noise_has_the_moments_it_says():
    z = base_noise("normal", 0, 0, 0, 400, (28, 28)).double()
    u = base_noise("uniform", 0, 0, 0, 400, (28, 28)).double()
    error = z.numel() ** -0.5
    assert abs(z.mean()) < 4 * error and abs(z.var() - 1) < 6 * error
    assert abs(z.pow(4).mean() - 3) < 40 * error
    assert -0.5 <= u.min() and u.max() < 0.5
    assert abs(u.mean()) < 4 * error and abs(u.var() - 1 / 12) < error


@pytest.mark.parametrize("protocol", [DataSpace(), ChNode2022()], ids=lambda p: p.name)
@pytest.mark.parametrize("level", [0.05, 0.2])
@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["gaussian", "s&p"])
def test_corruptions_are_distributed_as_scikit_image_does(protocol, level, grey, kind):
    """Both protocols at once: the published script gives `random_noise` the normalised image, whose negative
    background makes it clip to [-1, 1]; an image in [0, 1] is clipped there."""
    x = torch.full((N, 1, 28, 28), grey)
    x[:, :, 0, 0] = 0.0  # black somewhere, as in every digit
    inside = protocol.encode(x, INFO).numpy()
    if kind == "gaussian":
        theirs = random_noise(inside, mode="gaussian", mean=0, var=level, rng=1)
        ours = corrupted(Gaussian(level), protocol, x, level)
    else:
        theirs = random_noise(inside, mode="s&p", amount=level, rng=1)
        ours = corrupted(SaltAndPepper(level), protocol, x, level)
    low, high = protocol.bounds(INFO)
    moments = []
    for copy in (np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)):
        assert copy.min() >= low and copy.max() <= high
        moments.append([copy.mean(), copy.std(), (copy <= low).mean(), (copy >= high).mean()])
    spread = (high - low) * PIXELS**-0.5
    assert np.abs(np.subtract(*moments)).max() < 4 * spread


@pytest.mark.parametrize("amount", [0.0, 0.05, 0.2, 1.0])
def test_salt_and_pepper_hits_the_share_it_is_given_half_each(amount):
    x = torch.full((N, 1, 28, 28), 0.5)
    moved = corrupted(SaltAndPepper(amount), DataSpace(), x, amount)
    share = 4 * (PIXELS * 0.25) ** -0.5 / 2
    assert abs((moved == 1).double().mean() - amount / 2) < share
    assert abs((moved == 0).double().mean() - amount / 2) < share
    assert set(moved.unique().tolist()) <= {0.0, 0.5, 1.0}


def test_severities_share_the_noise():
    x = torch.full((N, 1, 28, 28), 0.5)
    few, many = (corrupted(SaltAndPepper(a), DataSpace(), x, a) for a in (0.05, 0.2))
    assert torch.equal(many[few != 0.5], few[few != 0.5]) and (many != 0.5).sum() > 2 * (few != 0.5).sum()
    little, much = (corrupted(Gaussian(v), DataSpace(), x, v) - 0.5 for v in (1e-6, 4e-6))
    assert torch.allclose(2 * little, much, atol=1e-6)


def test_legacy_protocol_goes_to_normalised_space_and_back():
    x = torch.rand(5, 1, 28, 28)
    legacy = ChNode2022()
    assert torch.allclose(legacy.decode(legacy.encode(x, INFO), INFO), x, atol=1e-6)
    white = torch.ones(1, 1, 28, 28)
    batch = Batch(legacy.encode(white, INFO), torch.zeros(1), None, legacy.bounds(INFO))
    clipped = legacy.decode(ClipOnly("noise").perturb(batch, 0.0), INFO)
    assert clipped.mean().item() == pytest.approx(0.439, abs=5e-4), "white becomes 0.439 in pixel space"
    pepper = legacy.decode(torch.full((1, 1, 28, 28), -1.0), INFO)
    assert pepper.mean().item() == pytest.approx(-0.177, abs=5e-4)


@pytest.mark.parametrize("protocol", [DataSpace(), ChNode2022()], ids=lambda p: p.name)
def test_colour_channels_are_normalised_by_their_own_constants(protocol):
    info = DatasetInfo((3, 2, 2), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0), (0.0, 1.0), Classification(("0", "1")))
    inside = protocol.encode(torch.full((1, 3, 2, 2), 0.5), info)[0, :, 0, 0]
    expected = [0.5] * 3 if protocol.space == "data" else [0.8, 0.3, 0.1]
    assert inside.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("perturbation", [Clean(), ClipOnly("noise"), Gaussian(0.2), SaltAndPepper(0.2)])
def test_the_input_is_left_as_it_is(perturbation):
    x = torch.rand(4, 1, 28, 28) * 3 - 1
    before = x.clone()
    noise = base_noise(perturbation.noise, 0, 0, 0, 4, (1, 28, 28)) if perturbation.noise else None
    perturbation.perturb(Batch(x, torch.zeros(4), noise, (0.0, 1.0)), 0.2)
    assert torch.equal(x, before)


def test_vectors_are_not_clipped_and_know_no_salt():
    x = torch.full((50, 2), 7.0)
    batch = Batch(x, torch.zeros(50), base_noise("normal", 0, 0, 0, 50, (2,)), None)
    moved = Gaussian(0.2).perturb(batch, 0.2)
    assert moved.std().item() == pytest.approx(0.2**0.5, rel=0.25) and moved.min() > 1
    assert "these data have none" in SaltAndPepper(0.2).refusal(None)
    assert SaltAndPepper(0.2).refusal((0.0, 1.0)) is None


@pytest.mark.parametrize("value", [-0.1, "abc", None, True, float("nan"), float("inf"), [], [0.1, -1]])
def test_impossible_variances_are_bad_input(value):
    with pytest.raises(BadInput, match=r"suite\.gaussian\.var"):
        Gaussian(value)
    with pytest.raises(BadInput, match=r"suite\.gaussian\.var"):
        check_suite({"clean": None, "gaussian": Part("", "gaussian", {"var": value})})


@pytest.mark.parametrize("value", [-0.1, 1.01, [0.5, 2]])
def test_impossible_amounts_are_bad_input(value):
    with pytest.raises(BadInput, match=r"suite\.salt_and_pepper\.amount=.*at most 1"):
        SaltAndPepper(value)
    with pytest.raises(BadInput, match=r"suite\.salt_and_pepper\.amount=.*at most 1"):
        check_suite({"salt_and_pepper": Part("", "salt_and_pepper", {"amount": value})})


def test_one_level_or_many():
    assert Gaussian(0.05).severities == (0.05,)
    assert SaltAndPepper([0, 0.2, 0.2, 1]).severities == (0.0, 0.2, 1.0)
    arguments = {"gaussian": {"var": [0.05, 3]}, "salt_and_pepper": {"amount": 1}, "clean": {}}
    check_suite({name: Part("", name, each) for name, each in arguments.items()})


@pytest.mark.parametrize("repeats", [0, -1, 2.5, True, "3"])
def test_impossible_repeats_are_bad_input(repeats):
    with pytest.raises(BadInput, match="repeats="):
        check_repeats(repeats)
