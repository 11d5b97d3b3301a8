"""Somebody else's networks, functions, perturbations and objectives work in place, and nothing of robode's changes."""

from __future__ import annotations

import pytest
import torch
from small_runs import SMALL, composed
from torch import Tensor, nn

from robode.attacks.pgd import pgd
from robode.attacks.problem import make_problem
from robode.attacks.square import square
from robode.certificates.radius import certified_radii
from robode.corruptions.noise import Clean, Gaussian
from robode.corruptions.perturbation import Batch, Corruption, Perturbation
from robode.corruptions.protocols import DataSpace
from robode.data.batches import evaluating
from robode.data.info import DatasetInfo
from robode.encoders import Conv, States
from robode.errors import BadInput
from robode.evaluation.copies import sample_grid
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan
from robode.families.resnet import ResNet
from robode.foreign import apart
from robode.integrators.euler import Euler
from robode.network import Network, try_once
from robode.objectives.cross_entropy import CrossEntropy
from robode.objectives.objective import Objective
from robode.ode.step import Step
from robode.tasks.classification import Classification
from robode.training.assembly import assemble
from robode.training.module import Training

INFO = DatasetInfo((1, 4, 4), (0.3,), (0.2,), (0.0, 1.0), Classification(tuple("abc")))


class Place(nn.Module):
    """Normalises in place, and answers in a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.register_buffer("answers", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.sub_(0.3).div_(0.2).flatten(1))


class Buffered(Place):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return super().forward(x)
        self.answers = self.answers.resize_(len(x), 3)
        return torch.addmm(self.head.bias, ((x - 0.3) / 0.2).flatten(1), self.head.weight.T, out=self.answers)


class Apart(Place):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(((x - 0.3) / 0.2).flatten(1))


def network(kind: type[Place]) -> Place:
    torch.manual_seed(1)
    return kind().eval()


def images(dtype: torch.dtype = torch.float32, n: int = 120) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = network(Apart)(x).argmax(1)
    return (x if dtype.is_floating_point else (255 * x).to(dtype)), labels


def rows(model: nn.Module, x: Tensor, labels: Tensor, **suite: Perturbation) -> list[dict[str, object]]:
    found = evaluate_suite(model, x, labels, Plan(suite, DataSpace(), INFO, repeats=2, seed=3), batch_size=50)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


@pytest.mark.parametrize("kind", [Place, Buffered])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@torch.no_grad()
def test_a_network_that_works_in_place_has_the_rows_of_one_that_does_not(kind: type[Place], dtype: torch.dtype) -> None:
    from robode.attacks.pgd import PGD

    x, labels = images(dtype)
    before, known = x.clone(), labels.clone()
    suite = {"gaussian": Gaussian([0.05, 0.2]), "clean": Clean(), "pgd": PGD([0.02, 0.1], "linf", steps=3)}
    expected = rows(network(Apart), x, labels, **suite)
    assert len({row["score"] for row in expected}) > 3
    model = network(kind)
    assert rows(model, x, labels, **suite) == expected
    assert torch.equal(x, before) and torch.equal(labels, known)
    assert not model._forward_pre_hooks and not model._forward_hooks
    plan = Plan(suite, DataSpace(), INFO, repeats=1, seed=3)
    grids = [sample_grid(each, x[:20], labels[:20], plan) for each in (model, network(Apart))]
    for (_, moved, said), (_, as_moved, as_said) in zip(*grids, strict=True):
        assert torch.equal(moved, as_moved) and torch.equal(said, as_said)
    assert torch.equal(x, before)


@pytest.mark.parametrize("attack", [pgd, square])
@pytest.mark.parametrize("as_function", [False, True])
def test_attacks_find_the_same(attack: object, as_function: bool) -> None:
    x, labels = images()
    found = []
    for model in (network(Place), network(Apart)):
        problem = make_problem(model.forward if as_function else model, x, labels, eps=0.1, bounds=(0.0, 1.0))
        found.append(attack(problem))  # type: ignore[operator]
    assert torch.equal(*found) and not torch.equal(found[0], x)


def test_certified_radii_leave_their_samples_as_they_are() -> None:
    x, labels = images()
    before, pairs = x.double(), torch.ones(3, 3, dtype=torch.float64)
    x = before.clone()
    model = network(Place).double()
    certified_radii(model, x, labels, pairs, rounding=1e-6)
    assert torch.equal(x, before)


def test_networks_of_robode_are_called_as_they_are() -> None:
    own = Network(INFO, ResNet(4, 2, Euler()))
    with apart(own), evaluating(own):
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in own.modules())


class Darker(Corruption):
    """Works in place on what it is told to."""

    name, severity_unit, noise = "darker", "share", "normal"

    def __init__(self, what: str) -> None:
        super().__init__("mine", (0.1, 0.5))
        self.what = what

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        getattr(batch, self.what).mul_(0)
        return batch.x * (1 - severity)


@pytest.mark.parametrize("what", ["x", "targets", "noise"])
def test_a_perturbation_that_changes_its_batch_is_refused_and_nothing_is_damaged(what: str) -> None:
    x, labels = images()
    before, known = x.clone(), labels.clone()
    with pytest.raises(BadInput, match=f"^suite: darker changes its {what}, which belongs to others too"):
        rows(network(Apart), x, labels, darker=Darker(what), gaussian=Gaussian([0.1]))
    assert torch.equal(x, before) and torch.equal(labels, known)


class InPlace(Objective):
    """A margin, written into the logits; and what else a careless objective does."""

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        logits = network(x)
        logits -= 100 * nn.functional.one_hot(target, logits.shape[1])
        loss = nn.functional.cross_entropy(logits, target)
        x.zero_()
        target.zero_()
        return {"mine": 0 * loss}


def test_an_objective_that_works_in_place_changes_no_other_and_no_count() -> None:
    parts = assemble(composed(*SMALL))
    x, target = next(iter(parts.data.train_dataloader()))
    before, known = x.clone(), target.clone()
    counts = []
    own, mine = {"own": CrossEntropy()}, {"mine": InPlace()}
    for objectives in (own, mine | own, own | mine):
        module = Training(parts.network, objectives, parts.module.config)
        module.stop_if_not_finite = lambda *given: None  # type: ignore[method-assign]
        loss = module.training_step((x, target), 0)
        counts.append((loss.item(), float(module.window.sums["accuracy"])))
    assert counts[0] == counts[1] == counts[2]
    assert torch.equal(x, before) and torch.equal(target, known)


class Shift(Step):
    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, y: Tensor) -> Tensor:
        return y.add_(1)


class Shifting(ResNet):
    def steps(self, context: Tensor | None = None) -> list[Step]:
        return [Shift(step) for step in super().steps()]


def test_steps_that_write_into_states_are_refused_before_a_training() -> None:
    with pytest.raises(BadInput, match="^model: step 1 of Shifting changes its state, which belongs to others too"):
        try_once(Network(INFO, Shifting(4, 2, Euler())))


class WritingEncoder(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class WritingHead(nn.Linear):
    def forward(self, y: Tensor) -> Tensor:
        return super().forward(y.relu_())


@torch.no_grad()
def test_encoders_and_heads_may_write_into_what_they_get() -> None:
    torch.manual_seed(0)
    model = Network(INFO, ResNet(4, 2, Euler()), WritingEncoder((1, 4, 4), States(4, False)), WritingHead(64, 3))
    x, _ = images()
    before, states = x.clone(), model.flow.states(model.embed(x))
    last = states[-1].clone()
    with evaluating(model):
        model.head(states[-1].flatten(1))
        model(x)
    assert torch.equal(x, before) and torch.equal(states[-1], last)
