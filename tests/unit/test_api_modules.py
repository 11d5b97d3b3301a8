"""`robode.attack`, `certify_module`, `smooth_module`, `logit_radii`: any nn.Module, without a run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import robode
from robode.api.modules import SEED_OF_ATTACKS
from robode.api.named_attacks import attacks
from robode.attacks.apgd import APGD, apgd
from robode.attacks.problem import make_problem
from robode.corruptions.noise import PerSampleRNG
from robode.errors import BadInput

BOUNDS = (0.0, 1.0)


class Rescaled(nn.Module):
    """Works in place, and has a mode."""

    def __init__(self, W: Tensor):
        super().__init__()
        self.W = nn.Parameter(W)

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).flatten(1) @ self.W.T + (100.0 if self.training else 0.0)


@pytest.fixture
def linear() -> Rescaled:
    torch.manual_seed(0)
    return Rescaled(torch.randn(4, 6))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(23, 6, generator=torch.Generator().manual_seed(1))


def labels(module: Rescaled, x: Tensor) -> Tensor:
    return ((x - 0.5) @ module.W.T).argmax(1)


def distances(module: Rescaled, x: Tensor) -> Tensor:
    """Of each sample to the nearest boundary of a linear classifier, exactly."""
    W, z = module.W.detach().double(), (x.double() - 0.5) @ module.W.detach().double().T
    y = z.argmax(1)
    apart = (W[y][:, None] - W).norm(dim=2)
    gaps = (z.gather(1, y[:, None]) - z) / apart
    return gaps.scatter(1, y[:, None], math.inf).amin(1)


def test_an_attack_finds_what_lies_beyond_the_boundary_and_only_that(linear: Rescaled, x: Tensor) -> None:
    y, before = labels(linear, x), x.clone()
    y[0] = (y[0] + 1) % 4  # wrong from the beginning
    far = distances(linear, x)
    eps = float(far[1:].median())
    linear.train()
    attacked = robode.attack(linear, x, y, attack="apgd_margin_l2", eps=eps, quiet=True)
    assert linear.training and torch.equal(x, before) and linear.W.requires_grad
    assert attacked.robust[1:].tolist() == (far[1:] > eps).tolist() and not bool(attacked.robust[0])
    assert torch.equal(attacked.adversarial[0], x[0]) and attacked.clean.tolist() == [0.0] + [1.0] * 22
    assert attacked.score == attacked.robust.double().mean() == attacked.scores.double().mean()
    assert bool(((attacked.adversarial - x).norm(dim=1) <= eps * (1 + 1e-5)).all())
    assert torch.equal(labels(linear, attacked.adversarial)[1:] == y[1:], attacked.robust[1:])


def test_random_numbers_belong_to_places_and_bounds_are_kept(linear: Rescaled, x: Tensor) -> None:
    y = labels(linear, x)
    whole, parts = (
        robode.attack(linear, x, y, attack="square_linf", eps=0.3, bounds=BOUNDS, queries=20, batch_size=size)
        for size in (500, 7)
    )
    assert torch.equal(whole.adversarial, parts.adversarial) and torch.equal(whole.robust, parts.robust)
    assert BOUNDS[0] <= float(whole.adversarial.min()) and float(whole.adversarial.max()) <= BOUNDS[1]
    assert not torch.equal(whole.adversarial, x)


def test_the_attack_is_that_of_the_function_with_the_same_numbers(linear: Rescaled, x: Tensor) -> None:
    y = labels(linear, x)
    rng = PerSampleRNG((SEED_OF_ATTACKS,), range(len(x)))
    alone = apgd(make_problem(linear, x, y, eps=0.1, bounds=BOUNDS, rng=rng), loss="dlr", steps=9)
    named = robode.attack(linear, x, y, attack="apgd_dlr_linf", eps=0.1, bounds=BOUNDS, steps=9)
    made = robode.attack(linear, x, y, attack=APGD(0.1, loss="dlr", steps=9), eps=0.1, bounds=BOUNDS)
    assert torch.equal(named.adversarial, alone) and torch.equal(made.adversarial, alone)


@pytest.mark.parametrize("name", sorted(attacks().keys() - {"autoattack"}))
def test_every_attack_has_a_name(name: str, linear: Rescaled, x: Tensor) -> None:
    few = {"steps": 2} if name not in ("fgsm", "square") else {"queries": 2} if name == "square" else {}
    attacked = robode.attack(linear, x, labels(linear, x), attack=name, eps=0.2, bounds=BOUNDS, **few)
    assert attacked.adversarial.shape == x.shape and attacked.robust.shape == (len(x),)


@pytest.mark.parametrize(("changed", "says"), [
    ({"attack": "pgdd_linf"}, r"^attack=pgdd_linf: unknown attack; did you mean 'pgd'\?$"),
    ({"attack": "magic"}, "^attack=magic: unknown attack; choose one of: apgd, "),
    ({"attack": "apgd_dlrr_linf"}, "^loss=dlrr: expected one of ce, margin, dlr"),
    ({"attack": "pgd", "stepz": 3}, "unknown key 'stepz' of .*did you mean 'steps'"),
    ({"attack": APGD(0.1), "steps": 3}, "^steps: expected no options"),
    ({"eps": -1.0}, "^eps=-1.0: expected"), ({"batch_size": 0}, "^batch_size=0: expected"),
    ({"y": torch.full((23,), 4)}, "^y: a label is outside 0 to 3"),
    ({"y": torch.zeros(3, dtype=torch.int64)}, "^y: expected 23 targets"),
    ({"x": torch.zeros(23, 6, dtype=torch.uint8)}, r"^x: expected \(B, \*shape\) floating-point .*, got \(23, 6\)"),
    ({"x": torch.zeros(23, 5)}, r"^module: Rescaled fails on samples of shape \(5,\) \(RuntimeError"),
    ({"module": 3}, "^module: expected a torch.nn.Module, got a int$"),
    ({"module": nn.Unflatten(1, (2, 3))}, r"^module: expected Unflatten to give outputs \(1, classes\) .*\(1, 2, 3\)$"),
])  # fmt: skip
def test_what_cannot_be_attacked_is_one_line(
    changed: dict[str, object], says: str, linear: Rescaled, x: Tensor
) -> None:
    given = {"module": linear, "x": x, "y": labels(linear, x), "eps": 0.1, "attack": "fgsm", **changed}
    with pytest.raises(BadInput, match=says):
        robode.attack(**given)


def test_certified_radii_are_below_the_distance_and_exact_for_one_layer(x: Tensor) -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.Dropout())
    y = module[0](x).argmax(1)
    W, z = module[0].weight.detach().double(), module[0].double()(x.double()).detach()
    module.float()
    gaps = (z.gather(1, y[:, None]) - z) / (W[y][:, None] - W).norm(dim=2)
    exact = gaps.scatter(1, y[:, None], math.inf).amin(1)
    certified = robode.certify_module(module, x, y, batch_size=5)
    torch.testing.assert_close(certified.radii, exact, rtol=1e-6, atol=1e-7)
    assert bool((certified.radii <= exact).all()) and certified.constants.end_to_end >= float(W.norm(2)) * 0.1
    assert certified.accuracy(float(exact.median())) == pytest.approx(0.5, abs=0.05)
    from_logits = robode.logit_radii(z, y, certified.constants.pairs)
    torch.testing.assert_close(from_logits, certified.radii, rtol=1e-9, atol=1e-12)
    largest = robode.logit_radii(z.float(), y, certified.constants.end_to_end)
    assert bool((largest <= certified.radii + 1e-6).all()) and float(largest.min()) > 0


def test_wrong_answers_have_negative_radii_and_no_constant_certifies_everything() -> None:
    logits = torch.tensor([[1.0, 3.0], [5.0, 2.0]])
    assert robode.logit_radii(logits, torch.zeros(2, dtype=torch.int64), 2.0).tolist() == pytest.approx(
        [-2 / (2 * math.sqrt(2)), 3 / (2 * math.sqrt(2))]
    )
    assert robode.logit_radii(logits, torch.tensor([1, 0]), 0.0).tolist() == [math.inf, math.inf]
    assert robode.logit_radii(logits, torch.tensor([1, 0]), math.inf).tolist() == [0.0, 0.0]
    for bad in (-1.0, math.nan, torch.zeros(3, 3)):
        with pytest.raises(BadInput, match="^lipschitz: expected a number of at least 0"):
            robode.logit_radii(logits, torch.tensor([1, 0]), bad)


def test_smoothing_holds_for_a_linear_classifier_and_abstains_at_the_boundary(linear: Rescaled, x: Tensor) -> None:
    """The smoothed answer of a half-space is the answer itself, and its radius at most the distance."""
    linear.W.data = linear.W.data[:2]
    far, y = distances(linear, x), labels(linear, x)
    smoothed = robode.smooth_module(linear, x, sigma=0.5, n=2000, seed=1)
    said = smoothed.answers >= 0
    assert torch.equal(smoothed.answers[said], y[said]) and int(said.sum()) > 10
    assert bool((smoothed.radii[said] <= far[said]).all())  # each with probability 99.9 %
    assert bool((smoothed.radii[said] >= 0.4 * far[said]).double().mean() > 0.8)
    again = robode.smooth_module(linear, x[:9], sigma=0.5, n=2000, seed=1)
    assert torch.equal(again.radii, smoothed.radii[:9])
    with pytest.raises(BadInput, match="^sigma=0: expected a number above 0"):
        robode.smooth_module(linear, x, sigma=0)


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        (lambda x: 255 * x, {}, "x: expected numbers within bounds"),
        (lambda x: x * math.nan, {}, "x: expected finite numbers"),
        (lambda x: x, {"bounds": (1, 0)}, "expected the smaller end first"),
        (lambda x: x, {"eps": [0.05, 0.1]}, "eps: expected a number"),
    ],
)
def test_samples_and_settings_that_make_no_sense_are_refused(change, given, said, linear: Rescaled, x: Tensor) -> None:
    with pytest.raises(BadInput, match=said):
        robode.attack(linear, change(x), labels(linear, x), **({"eps": 0.1, "bounds": BOUNDS, "quiet": True} | given))


def test_no_radius_is_below_zero(x: Tensor) -> None:
    certified = robode.certify_module(nn.Linear(6, 4), x, torch.zeros(len(x), dtype=torch.int64), quiet=True)
    with pytest.raises(BadInput, match="radius=-1"):
        certified.accuracy(-1)
    with pytest.raises(BadInput, match="finite"):
        robode.certify_module(nn.Linear(6, 4), x * math.inf, torch.zeros(len(x), dtype=torch.int64), quiet=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [("pgd_linff", "did you mean 'pgd_linf'"), ("apgdd_linf", "did you mean 'apgd'"), ("pgd_nothing", "loss=nothing")],
)
def test_a_misspelt_attack_is_answered_by_the_word_that_was_given(name, said, linear: Rescaled, x: Tensor) -> None:
    with pytest.raises(BadInput, match=said):
        robode.attack(linear, x, labels(linear, x), attack=name, eps=0.1, quiet=True)


def test_answers_are_printed_in_a_line_with_the_numbers_that_matter(x: Tensor) -> None:
    module = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.ReLU())), nn.Linear(6, 4))
    y = module(x).argmax(1)
    y[:4] = (y[:4] + 1) % 4  # 19 of 23 are right
    attacked = robode.attack(module, x, y, attack="pgd_l2", eps=0.5, quiet=True)
    score = f"{int(attacked.robust.sum()) / 23:.4g}"
    assert repr(attacked) == f"Attacked(adversarial=(23, 6), clean=0.8261, score={score})"
    certified = robode.certify_module(module, x, y, quiet=True)
    found = repr(certified)
    assert f"radii=(23,), right=0.8261, certified={certified.accuracy(1e-30):.4g}, median_radius=" in found
    assert f"largest_radius={certified.radii.max():.4g}, constants={certified.constants}" in found
    said = repr(certified.constants)
    assert said.startswith("Constants(Sequential.0=") and "… 3 more" in said and "flow" not in said
    assert said.endswith(f"end_to_end={certified.constants.end_to_end:.4g}, classes=4)")
    smoothed = robode.smooth_module(module, x, sigma=0.25, n=20, quiet=True)
    assert repr(smoothed).startswith("Smoothed(answers=(23,), abstain=") and "largest_radius=" in repr(smoothed)
    assert all(len(repr(each)) < 350 and "tensor" not in repr(each) for each in (attacked, certified, smoothed))
