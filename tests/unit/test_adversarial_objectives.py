"""Training against attacks: what the losses are, where their gradients come from, and that runs stay reproducible."""

import math

import pytest
import torch
from small_runs import SMALL, build_each, composed, train
from torch import nn
from torch.nn import functional

from robode.config.allowed import OF_OBJECTIVES
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.network import Network
from robode.objectives.adversarial import Adversarial
from robode.objectives.jacobian_penalty import JacobianPenalty
from robode.objectives.trades import START, Trades
from robode.runs.checkpoints import read_checkpoint
from robode.runs.table import METRICS
from robode.tasks.classification import Classification

GREY = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))
POINTS = DatasetInfo((2,), (0.1, -0.2), (1.0, 2.0), None, Classification(("a", "b", "c")))
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
ATTACKED = [Adversarial(0.2), Adversarial(0.5, "l2"), Adversarial(0.5, "l1"), Trades(0.2), Trades(0.5, norm="l2")]
EACH = [*ATTACKED, JacobianPenalty(0.1, 2)]


def name(objective) -> str:
    return f"{type(objective).__name__} {getattr(objective, 'norm', '')}".strip()


def problem(info=GREY, count=20):
    """A network with a submodule in another mode than the rest, samples (black and white among them) and labels."""
    torch.manual_seed(0)
    network = Network(info, ResNet(4, 2, Euler()))
    network.encoder.eval()
    x = torch.randn(count, *info.shape)
    return network, x if info.bounds is None else x.clamp(*info.bounds), torch.arange(count) % 3


def looked_at(network, objective, x, labels):
    """The terms, and every input of the network with whether it was in training mode."""
    seen = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], module.training)))
    terms = objective(network, x, labels)
    hook.remove()
    return terms, seen


@pytest.mark.parametrize("objective", EACH, ids=name)
@pytest.mark.parametrize("info", [GREY, POINTS], ids=["images", "points"])
def test_weights_get_their_gradient_from_the_loss_alone_and_nothing_else_changes(objective, info):
    network, x, labels = problem(info)
    before, modes = x.clone(), [module.training for module in network.modules()]
    terms = objective(network, x, labels)
    assert torch.equal(x, before) and not x.requires_grad and x.grad is None
    assert [module.training for module in network.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    sum(terms.values()).backward()
    head = () if isinstance(objective, JacobianPenalty) else ("head.bias",)  # J does not know the bias
    needed = {"encoder.weight", "flow.K", "head.weight", *head} & {n for n, _ in network.named_parameters()}
    assert all(bool((network.get_parameter(each).grad != 0).any()) for each in needed) and len(needed) >= 2
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("objective", ATTACKED, ids=name)
def test_the_attack_sees_the_network_in_evaluation_mode_and_stays_in_ball_and_bounds(objective):
    network, x, labels = problem()
    terms, seen = looked_at(network, objective, x, labels)
    final = seen[-1:] if isinstance(objective, Adversarial) else seen[-2:]
    assert [training for _, training in seen] == [False] * (len(seen) - len(final)) + [True] * len(final)
    worst = final[0][0]
    assert not worst.requires_grad and bool((worst >= 0).all()) and bool((worst <= 1).all())
    size = torch.linalg.vector_norm((worst - x).flatten(1), {"linf": math.inf, "l2": 2, "l1": 1}[objective.norm], 1)
    assert float(size.max()) <= objective.eps * (1 + 1e-5) and float(size.min()) > 0.1 * objective.eps
    black = torch.zeros_like(x)  # all at a bound, where torch's clamp has derivative 0
    _, seen = looked_at(network, objective, black, labels)
    assert float(seen[-1 if isinstance(objective, Adversarial) else -2][0].flatten(1).amax(1).min()) > 10 * START


@pytest.mark.parametrize("objective", EACH, ids=name)
def test_each_step_draws_anew_from_the_global_generator(objective):
    network, x, labels = problem()
    torch.manual_seed(5)
    first, second = (sum(objective(network, x, labels).values()).item() for _ in range(2))
    torch.manual_seed(5)
    assert sum(objective(network, x, labels).values()).item() == first != second


class Linear(nn.Module):
    """Two classes and a boundary that is known."""

    def __init__(self):
        super().__init__()
        self.info = DatasetInfo((3,), (0.0,) * 3, (1.0,) * 3, None, Classification(("a", "b")))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize("norm", DUAL)
def test_adversarial_is_the_worst_cross_entropy_of_a_linear_classifier(norm):
    torch.manual_seed(1)
    network, x, labels = Linear(), torch.randn(30, 3), torch.arange(30) % 2
    weights, biases = network.head.weight.detach(), network.head.bias.detach()
    difference = weights[1 - labels] - weights[labels]
    lead = (difference * x).sum(1) + biases[1 - labels] - biases[labels]
    worst = functional.softplus(lead + 0.3 * torch.linalg.vector_norm(difference, DUAL[norm], 1)).mean().item()
    found = Adversarial(0.3, norm, steps=40, step_size=0.3)(network, x, labels)
    assert list(found) == ["adversarial"] and found["adversarial"].item() == pytest.approx(worst, rel=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_trades_reaches_the_farthest_answers_of_a_linear_classifier(norm):
    torch.manual_seed(1)
    network, x, labels = Linear(), torch.randn(30, 3), torch.arange(30) % 2
    terms = Trades(0.3, 2.5, norm, steps=40, step_size=0.3)(network, x, labels)
    assert terms["trades_clean"].item() == pytest.approx(functional.cross_entropy(network(x), labels).item())
    w = (network.head.weight[1] - network.head.weight[0]).detach()
    lead = (network(x)[:, 1] - network(x)[:, 0]).detach()
    reach = 0.3 * torch.linalg.vector_norm(w, DUAL[norm])
    p = torch.sigmoid(lead)

    def divergence(q):
        return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()

    # KL grows to both sides: each sample has two maxima, one of which is found.
    sides = torch.stack([divergence(torch.sigmoid(lead + sign * reach)) for sign in (-1, 1)])
    low, high = (2.5 * each.mean().item() for each in (sides.amin(0), sides.amax(0)))
    assert low * (1 - 1e-4) <= terms["trades_gap"].item() <= high * (1 + 1e-4)


@pytest.mark.parametrize("objective", ATTACKED, ids=name)
def test_gradients_are_those_at_a_fixed_worst_input(objective):
    network, x, labels = problem()
    terms, seen = looked_at(network, objective, x, labels)
    found = torch.autograd.grad(sum(terms.values()), list(network.parameters()))
    if isinstance(objective, Adversarial):
        loss = functional.cross_entropy(network(seen[-1][0]), labels)
    else:
        p, q = (network(z).softmax(1) for z in (x, seen[-2][0]))
        gap = (p * (p.log() - q.log())).sum(1).mean()
        loss = functional.cross_entropy(network(x), labels) + objective.beta * gap
    expected = torch.autograd.grad(loss, list(network.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("objective", EACH, ids=name)
def test_a_step_down_the_gradient_lowers_the_loss(objective):
    network, x, labels = problem()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def loss():
        torch.manual_seed(9)
        return sum(objective(network, x, labels).values())

    before = loss()
    before.backward()
    optimizer.step()
    assert loss().item() < before.item()


TERMS = {
    "trades": ("trades_clean", "trades_gap"),
    "[adversarial,jacobian_penalty,weight_smoothness]": ("adversarial", "jacobian_penalty", "weight_smoothness"),
}


@pytest.mark.parametrize("objective", ["trades", pytest.param([*TERMS][1], marks=pytest.mark.slow)])
def test_a_run_logs_its_terms_and_resumes_with_the_draws_it_would_have_made(objective, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = (f"objective={objective}",)
    whole = train("epochs=2", "run=whole", *words)
    train("epochs=1", "run=parted", *words)
    parted = train("resume=parted", "epochs=2")
    one, two = (read_checkpoint(run.last)["state_dict"] for run in (whole, parted))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    metrics = METRICS.read(whole.folder / "metrics.csv")
    logged = {each.removeprefix("train/"): rows["value"].to_list() for each, rows in metrics.groupby("name")}
    terms = zip(*(logged[each] for each in TERMS[objective]), strict=True)
    assert logged["loss"] == pytest.approx([sum(each) for each in terms], rel=1e-5) and len(logged["loss"]) > 0


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("objective=adversarial", "objective.adversarial.eps=-1"), "objective.adversarial.eps"),
        (("objective=adversarial", "objective.adversarial.eps=much"), "objective.adversarial.eps"),
        (("objective=adversarial", "objective.adversarial.norm=l3"), "objective.adversarial.norm"),
        (("objective=adversarial", "objective.adversarial.steps=0"), "objective.adversarial.steps"),
        (("objective=trades", "objective.trades.norm=l1"), "objective.trades.norm"),
        (("objective=trades", "objective.trades.step_size=0"), "objective.trades.step_size"),
        (("objective=trades", "objective.trades.beta=-1"), "objective.trades.beta"),
    ],
)
def test_settings_that_make_no_sense(words, key):
    with pytest.raises(BadInput, match=key):
        build_each(composed(*SMALL, *words).objective, drop=OF_OBJECTIVES)
