"""foolbox as oracle for FGSM and PGD; pyautoattack for the APGD of the standard attack."""

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import make_problem
from robode.corruptions.noise import PerSampleRNG
from robode.tasks.classification import misclassified

foolbox = pytest.importorskip("foolbox")

N, UNIT = 1000, (0.0, 1.0)


@pytest.fixture(scope="module")
def problem():
    """A small convolutional network after a short training on blobs, its data, and who is right."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(10, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 10, (N,), generator=generator)
    x = (centres[labels] + 0.25 * torch.randn(N, 1, 8, 8, generator=generator)).clamp(0, 1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
    network.requires_grad_(False)
    right = ~misclassified(network(x), labels)
    assert int(right.sum()) > 900
    return network, x, labels, right


def wrapped(network):
    return foolbox.PyTorchModel(network.eval(), bounds=UNIT, device="cpu")


def test_fgsm_is_foolbox_fgsm(problem):
    network, x, labels, right = problem
    for eps in (0.01, 0.05, 0.2):
        theirs, _, _ = foolbox.attacks.LinfFastGradientAttack(random_start=False)(
            wrapped(network), x, labels, epsilons=eps
        )
        ours = fgsm(make_problem(network, x, labels, eps=eps, bounds=UNIT))
        torch.testing.assert_close(ours[right], theirs[right], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("norm, eps", [("linf", 0.16), ("linf", 0.2), ("l2", 1.0), ("l2", 1.3)])
def test_pgd_succeeds_as_often_as_foolbox(problem, norm, eps):
    network, x, labels, _ = problem
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(steps=40, rel_stepsize=2.5 / 40, random_start=False)
    _, _, success = attack(wrapped(network), x, labels, epsilons=eps)
    how = {"eps": eps, "norm": norm, "bounds": UNIT}
    mine = make_problem(network, x, labels, **how)
    ours, best = (
        int(misclassified(network(pgd(mine, steps=40, early=early)), labels).sum()) for early in (False, True)
    )
    assert 200 < int(success.sum()) < 950
    assert abs(ours - int(success.sum())) <= N // 1000
    assert best >= max(ours, int(success.sum()))  # keeps what fell on the way


@pytest.mark.slow
@pytest.mark.parametrize("norm, eps", [("linf", 0.18), ("l2", 1.1)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_succeeds_as_often_as_the_published_one(problem, norm, eps, loss):
    public = pytest.importorskip("pyautoattack.autopgd_base")
    network, x, labels, _ = problem
    theirs = public.APGDAttack(
        network, n_iter=100, n_restarts=1, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0, loss=loss,
        device="cpu",
    ).perturb(x.clone(), labels.clone())  # fmt: skip
    rng = PerSampleRNG((0,), range(N))
    ours = apgd(make_problem(network, x, labels, eps=eps, norm=norm, bounds=UNIT, rng=rng), loss=loss)
    fell = [int(misclassified(network(moved), labels).sum()) for moved in (ours, theirs)]
    assert 200 < fell[1] < 950 and fell[0] >= fell[1] - 5  # of 1000, from other starts
