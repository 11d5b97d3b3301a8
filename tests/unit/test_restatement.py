"""The yardstick of the bench computes what robode computes: same layer, gamma, penalty and noise."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from robode.config.compose import Request, compose_trainings
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.ode.flow import Constrained
from robode.training.assembly import Parts, assemble
from robode.training.callbacks import constrained

FILE = Path(__file__).parents[2] / "bench" / "restatement.py"
FAMILIES = ("chnode", "hdnn", "resnet")
DEPTH = 4


def load() -> ModuleType:
    """bench/ is a folder of scripts, not a package."""
    spec = importlib.util.spec_from_file_location("restatement", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


restatement = load()


def pair(family: str, depth: int = DEPTH) -> tuple[Any, Any]:
    """The restatement's layers and robode's flow: equal K and b, published h, kappa and gamma rule."""
    torch.manual_seed(3)
    theirs = restatement.FAMILIES[family](depth)
    n, h = restatement.CHANNELS, restatement.STEP
    ours: Any
    if family == "chnode":
        ours = CHNode(n, depth, Euler(), h, kappa=restatement.KAPPA, gamma="script_mnist", gamma_start="zero")
    else:
        ours = {"hdnn": HDNN, "resnet": ResNet}[family](n, depth, Euler(), h)
    with torch.no_grad():
        ours.K.copy_(theirs.K)
        ours.b.copy_(theirs.b[..., None])
    return theirs, ours


def update(theirs: Any, ours: Any) -> None:
    """What both do after an optimiser step: gamma, where there is one."""
    theirs.update()
    if isinstance(ours, Constrained):
        ours.project_()


def images() -> Tensor:
    return torch.randn(5, restatement.CHANNELS, 6, 7, generator=torch.Generator().manual_seed(0))


def assert_equal_up_to(relative: float, actual: Tensor, expected: Tensor) -> None:
    """Relative to the largest entry: with a large gamma, small entries are differences of large ones."""
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_is_robodes_euler_step_to_float32_round_off(family: str) -> None:
    theirs, ours = pair(family, depth=1)
    update(theirs, ours)
    with torch.no_grad():
        assert_equal_up_to(2e-6, ours(images()), theirs(images()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_flow_and_its_gradient_agree_in_float64(family: str) -> None:
    """In float64, because four published layers magnify float32 round-off by up to 1e3 each."""
    theirs, ours = pair(family)
    theirs, ours = theirs.double(), ours.double()
    update(theirs, ours)
    for flow in (theirs, ours):
        flow(images().double()).square().mean().backward()
    with torch.no_grad():
        assert_equal_up_to(1e-9, ours(images().double()), theirs(images().double()))
    assert_equal_up_to(1e-8, ours.K.grad, theirs.K.grad)


def test_the_first_forward_pass_has_gamma_zero_in_both() -> None:
    theirs, ours = pair("chnode", depth=1)
    assert theirs.gamma == float(ours.gamma) == 0
    with torch.no_grad():
        assert_equal_up_to(2e-6, ours(images()), theirs(images()))


def test_gamma_after_an_update_is_robodes_script_rule() -> None:
    theirs, ours = pair("chnode")
    update(theirs, ours)
    assert theirs.gamma > 100
    assert theirs.gamma == pytest.approx(float(ours.gamma), rel=1e-5)


def test_training_adds_the_smoothness_term_once_per_pair_of_layers() -> None:
    """With zero weights in the head and an SGD step of size 1, b moves by the penalty's gradient alone."""
    torch.manual_seed(0)
    network, _, alpha = restatement.set_up("resnet", DEPTH)
    torch.nn.init.zeros_(network.fc.weight)
    layers = network.layers
    before, alpha = layers.b.detach().clone(), 0.01
    batch = (torch.rand(2, 1, 28, 28), torch.tensor([1, 2]))
    restatement.train(network, [batch], torch.optim.SGD([layers.b], lr=1.0), alpha)
    slope = (DEPTH - 1) * alpha * layers.h * (before[0] - before[1])
    assert torch.allclose(before[0] - layers.b[0], slope, atol=1e-6)


def recipe(family: str) -> Parts:
    """What `robode train experiment=chnode_2022/table1` trains with, on the embedded digits, in float64."""
    words = ("experiment=chnode_2022/table1", f"model={family}", f"depth={DEPTH}", "data=mnist5k")
    parts = assemble(compose_trainings(Request("train", words))[0])
    parts.network.double()
    return parts


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table1_experiment_takes_the_same_steps(family: str) -> None:
    """Loss, weight decay, learning rate, smoothness and gamma: every published number of the recipe at once."""
    parts = recipe(family)
    ours: Any = parts.network
    theirs, optimizer, alpha = restatement.set_up(family, DEPTH)
    theirs = theirs.double()
    with torch.no_grad():
        theirs.layers.K.copy_(ours.flow.K)
        theirs.layers.b.copy_(ours.flow.b[..., 0])
    theirs.conv1.load_state_dict(ours.encoder.state_dict())
    theirs.fc.load_state_dict(ours.head.state_dict())
    x, labels = next(iter(parts.data.train_dataloader()))
    x = x[:20].double()
    normalised = ours.normalise(x)  # its mean and std are float32, which Adam's division would magnify
    assert torch.allclose(normalised, (x - 0.1307) / 0.3081, atol=1e-6)
    for part in range(0, 20, 5):
        rows = slice(part, part + 5)
        restatement.train(theirs, [(normalised[rows], labels[rows])], optimizer, alpha)
        parts.module.optimizer.zero_grad()
        terms = [objective(ours, x[rows], labels[rows]) for objective in parts.module.objectives.values()]
        torch.stack([term for named in terms for term in named.values()]).sum().backward()
        parts.module.optimizer.step()
        for each in constrained(ours):
            each.project_()
    assert_equal_up_to(1e-5, ours.flow.K, theirs.layers.K)
    assert_equal_up_to(1e-5, ours.head.weight, theirs.fc.weight)
    assert_equal_up_to(1e-5, ours.encoder.weight, theirs.conv1.weight)


@pytest.mark.parametrize(("mode", "level"), restatement.NOISE_LEVELS)
def test_noise_is_added_after_normalising_and_clipped_to_plus_minus_one(mode: str, level: float) -> None:
    half_white = torch.zeros(200, 200)  # many pixels: scikit-image's noise has no seed here
    half_white[100:] = 1
    image = restatement.transforms.ToPILImage()(half_white)
    clean, x = restatement.customary()(image), restatement.noisy(mode, level)(image)
    assert clean.max() > 2.8
    assert x.dtype == torch.float32 and x.min() >= -1 and x.max() == 1
    black = x[0, :100]
    if mode == "s&p":
        changed = black[black != clean[0, :100]]
        assert set(changed.tolist()) == {-1.0, 1.0}
        assert 0.9 * level < len(changed) / black.numel() < 1.1 * level
    else:
        assert (x[0, 100:] == 1).float().mean() > 0.99
        assert 0.85 * level**0.5 < black.std() < 1.02 * level**0.5


def test_nothing_of_robode_is_imported() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names and not any(name.split(".")[0] == "robode" for name in names)
