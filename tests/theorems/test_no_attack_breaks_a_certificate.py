"""Certified radii of every family against every attack: 1 000 digits, each attacked at 0.999 of its own radius."""

import pytest
import torch
from small_runs import composed
from torch.nn import functional

from robode.attacks.apgd import apgd
from robode.attacks.fmn import fmn
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import make_problem
from robode.attacks.square import square
from robode.certificates.radius import certified_radii, pair_lipschitz
from robode.corruptions.noise import PerSampleRNG
from robode.data.batches import in_units
from robode.network import build_network
from robode.training.assembly import build_data

FAMILIES = {
    "chnode, etd": ("model=chnode",),
    "chnode, imex": ("model=chnode", "integrator=imex"),
    "chnode, euler": ("model=chnode", "integrator=euler"),
    "hdnn": ("model=hdnn",),
    "resnet": ("model=resnet",),
    "node": ("model=node", "model.hidden=[8]", "integrator=euler"),
    "gradient_flow": ("model=gradient_flow", "model.width=64"),
    "gradient_flow_conv": ("model=gradient_flow_conv", "model.stages=2", "model.width=8"),
    "conv_stable_node": ("model=conv_stable_node", "model.width=4", "model.delta=0.5", "head=orthonormal"),
    "lipschitz_mlp": ("model=lipschitz_mlp", "model.width=64"),
    "chnode_lipschitz": ("model=chnode_lipschitz",),
    "chnode_dense": ("model=chnode_dense", "model.width=64"),
}
N, STEPS = 1000, 10
pytestmark = pytest.mark.slow


def briefly_trained(words):
    config = composed(*words, "data=mnist5k", "depth=2", "trainer.threads=1")
    data = build_data(config)
    data.prepare()
    torch.manual_seed(0)
    network = build_network(config, data.info)
    x, labels = data.split("train")
    x, labels = in_units(x[:N]), labels[:N]
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    for k in range(40):
        rows = torch.arange(k * 100, (k + 1) * 100) % N
        optimizer.zero_grad()
        functional.cross_entropy(network(x[rows]), labels[rows]).backward()
        optimizer.step()
        for each in network.modules():
            if hasattr(each, "project_"):
                each.project_()
    return network.double().eval(), x.double(), labels


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_flips_within_the_certified_radius(family):
    network, x, labels = briefly_trained(FAMILIES[family])
    radii = torch.cat([certified_radii(network, *each, pair_lipschitz(network)) for each in batches(x, labels)])
    safe = radii > 0
    assert int(safe.sum()) > 300, "hardly anything is certified: the test would say nothing"
    for number, batch in enumerate(batches(x[safe], labels[safe], radii[safe])):
        attack_each(network, *batch, PerSampleRNG((number,), range(len(batch[0]))))


def batches(*tensors):
    """Small enough for a cache."""
    return zip(*(each.split(50) for each in tensors), strict=True)


def attack_each(network, x, labels, radii, draws):
    def problem():
        return make_problem(network, x, labels, eps=0.999 * radii, norm="l2", rng=draws)

    moved = {
        "fgsm": fgsm(problem(), loss="margin"),
        "pgd": pgd(problem(), steps=STEPS),
        "pgd margin": pgd(problem(), loss="margin", steps=STEPS),
        "apgd": apgd(problem(), loss="dlr", steps=STEPS),
        "targeted": apgd(problem(), loss="dlr", steps=STEPS, targets=2),
        "square": square(problem(), queries=STEPS),
    }
    with torch.no_grad():
        for attack, each in moved.items():
            inside = (each - x).flatten(1).norm(dim=1) <= radii
            assert bool(inside.all()), f"{attack} leaves its ball"
            assert bool((network(each).argmax(1) == labels).all()), f"{attack} breaks a certificate"
    nearest = fmn(make_problem(network, x, labels, eps=0.0, norm="l2", rng=draws), steps=20)
    with torch.no_grad():
        wrong = network(nearest).argmax(1) != labels
    distance = (nearest - x).flatten(1).norm(dim=1)
    assert bool((distance[wrong] >= radii[wrong]).all()), "a wrong answer lies within a certified radius"
