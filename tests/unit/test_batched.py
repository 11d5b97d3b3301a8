"""Seeds trained in one batch leave what separate trainings leave."""

import pytest
import torch
from batches import TOY, alone, assert_same_run, configs, together
from small_runs import SMALL, composed

from robode.errors import BadInput
from robode.network import build_network
from robode.objectives.cross_entropy import CrossEntropy
from robode.training.assembly import assemble
from robode.training.batched_checks import check_batch
from robode.training.checkpoints import load_weights, read_checkpoint

IMAGES = (
    "data=mnist5k", "data.limit_train=8", "data.validation=6", "batch_size=4", "depth=2", "epochs=2", "suite=clean",
    "callbacks=none", "trainer.threads=1", "trainer.precision=64-true",
)  # fmt: skip
SMOOTH = ("objective=[cross_entropy,weight_smoothness]", "objective.weight_smoothness.count=script")
CASES = {
    "etd": (*TOY, "optimizer=adam_decay"),
    "euler as published": (
        *TOY, *SMOOTH, "integrator=euler", "step=0.1", "model.gamma=script_2d", "model.gamma_start=zero",
        "model.kappa=0.04", "optimizer.optimizer.weight_decay=0.01",
    ),
    "hdnn": (*TOY, "model=hdnn", "integrator=symplectic_euler", "model.separable=true", "optimizer=sgd"),
    "resnet": (*TOY, *SMOOTH, "model=resnet"),
    "node": (*TOY, "model=node", "optimizer=adam_decay", "optimizer.interval=step"),
    "rk4": (*TOY, "integrator=rk4", "model.trainable_L=true", "model.shared=true"),
    "in turns": (*TOY, "model.gamma=differentiable", *SMOOTH),
    "images": IMAGES,
    "images in turns": (*IMAGES, "model=resnet", "batch_size=8", "model.width=12"),
}  # fmt: skip
QUICK = ("etd", "resnet", "images")


@pytest.mark.parametrize(
    "case", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in CASES]
)
def test_a_batch_is_separate_trainings(case, tmp_path):
    jobs = configs(CASES[case], 3, 1)
    runs = together(tmp_path, jobs)
    assert_same_run(alone(jobs[1], tmp_path / "alone"), runs[1])
    other, same = (read_checkpoint(run.last)["state_dict"]["network.readout.weight"] for run in runs)
    assert not torch.equal(other, same)


def test_in_float32_every_gamma_is_exactly_that_of_its_weights(tmp_path):
    jobs = configs((*SMALL, "epochs=1"), 1, 2)
    for job, run in zip(jobs, together(tmp_path, jobs), strict=True):
        network = build_network(job, assemble(job).data.facts)
        load_weights(run.last, network)
        before = {name: value.clone() for name, value in network.flow.named_buffers()}
        network.flow.project_()
        assert all(torch.equal(before[name], value) for name, value in network.flow.named_buffers())


class Noisy(CrossEntropy):
    """Draws from torch's global generator, as adversarial training with random starts does."""

    def __call__(self, network, x, labels):
        return super().__call__(network, x + 0.1 * torch.randn_like(x), labels)


def test_objectives_that_draw_random_numbers_draw_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBODE_TRUST", __name__)
    jobs = configs((*TOY, "epochs=1", f"objective.cross_entropy._target_={__name__}.Noisy"), 1, 2)
    runs = together(tmp_path, jobs)
    assert_same_run(alone(jobs[1], tmp_path / "alone"), runs[1])


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("callbacks=[default,early_stopping]",), "callbacks.early_stopping"),
        (("trainer=ddp_sim",), "trainer=ddp_sim"),
        (("trainer.precision=bf16-mixed",), "trainer.precision"), (("+trainer.max_steps=3",), "trainer.max_steps"),
        (("optimizer.optimizer._target_=torch.optim.LBFGS",), "optimizer"),
    ],
)  # fmt: skip
def test_what_cannot_be_batched_is_one_line(words, key):
    with pytest.raises(BadInput, match=key) as refusal:
        check_batch(configs((*SMALL, *words), 1, 2))
    assert "\n" not in str(refusal.value)


def test_only_seeds_may_differ():
    one, two = composed(*SMALL, "seed=1"), composed(*SMALL, "seed=2", "lr=0.1")
    with pytest.raises(BadInput, match=r"optimizer.optimizer.lr|lr: expected one value"):
        check_batch([one, two])
    with pytest.raises(BadInput, match="seeds: expected different ones, got 1, 1"):
        check_batch([one, one])
    check_batch([one, composed(*SMALL, "seed=2", "repeats=7", "run=other")])
