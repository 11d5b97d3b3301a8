"""Nero: what its equations say, what it keeps, and that a run with it can be cut off; and the schedule by shares."""

import math

import pytest
import torch
from small_runs import composed, train
from torch import Tensor, nn

from robode.api import load
from robode.errors import BadInput
from robode.optimizers import Nero, StepAt, norms
from robode.runs.run import Run
from robode.training.module import Training
from robode.training.plan import resumed


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def kernel(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3)


def stepped(p: nn.Parameter, optimizer: Nero, *gradients: Tensor) -> Tensor:
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach().clone()


def test_two_steps_by_hand_of_a_matrix_and_of_a_bias() -> None:
    """Row norms 5 and 1, so sigma = 3. Step 1 takes the direction of g; in step 2 v is 0.9 * 0.1 * 4 + 0.1 * 9."""
    matrix = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    bias = nn.Parameter(torch.tensor([2.0, -4.0]))  # norms 2 and 4, so sigma = 3
    optimizer = Nero([matrix, bias], lr=0.1, beta=0.9)
    matrix.grad, bias.grad = torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([-7.0, 1e-3])
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.tensor([[3.0, 3.7], [0.0, 1.0]]))
    torch.testing.assert_close(bias.detach(), torch.tensor([2.3, -4.3]))
    matrix.grad = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    optimizer.step()
    v = (0.9 * 0.1 * 4 + 0.1 * 9) / (1 - 0.9**2)
    torch.testing.assert_close(matrix.detach()[0], torch.tensor([3 - 0.3 * 3 / math.sqrt(v), 3.7]))


def test_a_step_of_a_kernel_by_hand() -> None:
    """(1, 2, 3, 4) - 2.5 has norm sqrt 5; it moves by lr along g / ||g||, loses its mean and gets norm 1."""
    p = nn.Parameter(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    optimizer = Nero([p], lr=0.1)
    start = torch.tensor([-1.5, -0.5, 0.5, 1.5]) / math.sqrt(5)
    torch.testing.assert_close(p.detach().flatten(), start)
    found = stepped(p, optimizer, torch.tensor([[[[0.0, 0.0], [0.0, 9.0]]]])).flatten()
    moved = start - torch.tensor([0.0, 0.0, 0.0, 0.1])
    moved -= moved.mean()
    torch.testing.assert_close(found, moved / moved.norm())


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (3, 4, 4, 3, 3)])
def test_neurons_of_kernels_keep_mean_0_and_norm_1(shape) -> None:
    p = kernel(*shape)
    optimizer = Nero([p], lr=0.3, beta=0.9)
    for _ in range(5):
        rows = p.detach().flatten(1)
        torch.testing.assert_close(rows.mean(1), torch.zeros(len(rows)), atol=1e-6, rtol=0)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
        before = p.detach().clone()
        assert not torch.equal(stepped(p, optimizer, torch.randn(shape)), before)


def test_who_is_constrained() -> None:
    """By default kernels, not the stacks of matrices and biases of robode's families; as published, all matrices."""
    shapes = {"kernel": (3, 2, 3, 3), "stack": (2, 3, 3), "matrix": (3, 4), "bias": (4,), "number": (), "thin": (3, 1)}
    for constrained, kept in {"kernels": {"kernel"}, "matrices": {"kernel", "stack", "matrix"}, "none": set()}.items():
        tensors = {name: kernel(*shape) for name, shape in shapes.items()}
        before = {name: p.detach().clone() for name, p in tensors.items()}
        Nero(tensors.items(), constrained=constrained)
        assert {name for name, p in tensors.items() if not torch.equal(p, before[name])} == kept


def test_a_tensor_that_does_not_learn_stays_as_it_is() -> None:
    p = kernel(2, 1, 3, 3).requires_grad_(False)
    before = p.clone()
    Nero([p])
    assert torch.equal(p, before)


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (4, 5), (7,)])
def test_only_the_directions_of_gradients_count(shape) -> None:
    gradients = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    one, two = kernel(*shape), kernel(*shape)
    a, b = Nero([one], beta=0.9), Nero([two], beta=0.9)
    torch.testing.assert_close(stepped(one, a, gradients[0]), stepped(two, b, 1e-6 * gradients[0]))
    one, two = kernel(*shape), kernel(*shape)
    a, b = Nero([one], beta=0.9), Nero([two], beta=0.9)
    torch.testing.assert_close(stepped(one, a, *gradients), stepped(two, b, *(1024 * each for each in gradients)))


def test_neurons_without_a_gradient_and_gradients_that_are_not_finite_move_nothing() -> None:
    for shape in ((3, 2, 3, 3), (3, 4)):
        p = kernel(*shape)
        optimizer = Nero([p], lr=0.5)
        before, gradient = p.detach().clone(), torch.randn(shape)
        gradient[1], gradient[2] = 0.0, math.inf
        found = stepped(p, optimizer, gradient, gradient)
        torch.testing.assert_close(found[1:], before[1:])
        assert not torch.allclose(found[0], before[0], atol=0.1)
    p = nn.Parameter(torch.zeros(3))  # begins at 0: its scale is 0.01
    torch.testing.assert_close(
        stepped(p, Nero([p], lr=0.5), torch.tensor([1.0, 0.0, -2.0])), torch.tensor([-5e-3, 0, 5e-3])
    )


def test_bad_input_names_the_tensor() -> None:
    dull = kernel(3, 2, 3, 3).detach()
    dull[1] = 0.25
    layer = nn.Conv2d(2, 3, 3)
    layer.weight = nn.Parameter(dull)
    with pytest.raises(BadInput, match=r"all numbers of stem\.weight\[1\] \(shape \(3, 2, 3, 3\)\) are equal"):
        Nero(nn.ModuleDict({"stem": layer}).named_parameters())
    for key, value, says in (("lr", 0, "> 0"), ("beta", 1.0, r"in \[0, 1\)"), ("constrained", "all", "kernels, matr")):
        with pytest.raises(BadInput, match=f"optimizer.optimizer.{key}={value}: .*{says}"):
            Nero([kernel(2, 2)], **{key: value})


def test_a_closure_makes_the_gradients() -> None:
    p = kernel(2, 3)
    optimizer = Nero([p], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    assert first is not None and closure() < first


def test_shares_of_the_epochs() -> None:
    def rates(epochs: int, *shares: float) -> list[float]:
        optimizer = torch.optim.SGD([kernel(1)], lr=1.0)
        scheduler = StepAt(optimizer, epochs, shares)
        found = []
        for _ in range(epochs):
            found.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return found

    assert rates(4, 0.5) == [1.0, 1.0, 0.1, 0.1]
    assert rates(5, 0.5) == [1.0, 1.0, 1.0, 0.1, 0.1] and rates(1, 0.5) == [1.0]
    assert rates(8, 0.75, 0.25, 0.5) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    with pytest.raises(BadInput, match=r"optimizer.scheduler.shares=\[1.5\]"):
        rates(4, 1.5)


IMAGES = ("data=mnist5k", "data.limit_train=60", "data.validation=20", "model.width=2", "trainer.threads=1", "depth=2",
          "batch_size=25", "suite=clean", "repeats=1", "optimizer=nero", "lr=0.01")  # fmt: skip


def test_kernels_of_a_network_are_constrained() -> None:
    network = load(train(*IMAGES, "epochs=1").folder)
    (weight,) = [p for p in network.parameters() if p.dim() == 4]
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(weight.flatten(1).mean(1), torch.zeros(2), atol=1e-6, rtol=0)


def test_what_a_family_projects_keeps_its_guarantee() -> None:
    """It comes last: the log-norm is at most delta, for which mean and norm of a layer's weights had to give way."""
    words = ("model=stable_node", "model.delta=-1", "optimizer=nero", "optimizer.optimizer.constrained=matrices")
    flow = load(train(*words, "~callbacks.bsm", "epochs=2").folder).flow
    assert all(bound.upper <= -1 for bound in flow.lognorm_bounds())
    assert not torch.allclose(norms(flow.K.detach()), torch.ones(1))


def everything(run: Run) -> dict[str, Tensor]:
    content = torch.load(run.last, weights_only=True)
    state = content["optimizer_states"][0]["state"]
    assert {"step", "scale", "v"} == set(state[0])
    found = {f"{i}.{key}": torch.as_tensor(value) for i, each in state.items() for key, value in each.items()}
    return found | content["state_dict"] | {"lr": torch.tensor(content["optimizer_states"][0]["param_groups"][0]["lr"])}


def test_a_run_that_was_cut_off_goes_on_with_the_same_bits() -> None:
    """Past the share at which the rate falls, and with a kernel that is constrained."""
    words = (*IMAGES, "optimizer.scheduler.shares=[0.25]", "epochs=3")
    whole = train(*words, "run=whole")
    with pytest.MonkeyPatch.context() as patch:
        original = Training.training_step

        def training_step(self, batch, batch_idx):
            if self.global_step == 5:
                raise KeyboardInterrupt
            return original(self, batch, batch_idx)

        patch.setattr(Training, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            train(*words, "run=cut")
    assert not Run(whole.folder.parent / "cut").trained
    one, two = everything(whole), everything(train("resume=cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert float(one["lr"]) == pytest.approx(1e-3)


def test_another_length_than_the_schedule_is_laid_out_for_is_refused() -> None:
    run = train("optimizer=nero", "epochs=1")
    with pytest.raises(BadInput, match="laid out for 1 epochs"):
        resumed(composed(f"resume={run.id}", "epochs=2"), ["epochs=2"])


def test_weights_that_are_trained_no_further_are_not_projected() -> None:
    """epochs=0 leaves the weights of `start` as they are, whatever the optimiser would do."""
    before = train(*IMAGES, "optimizer=adam", "epochs=1")
    after = train(*IMAGES, f"start={before.folder}", "epochs=0")
    one, two = (dict(load(run.folder).named_parameters()) for run in (before, after))
    assert all(torch.equal(one[name], two[name]) for name in one)
