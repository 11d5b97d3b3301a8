"""Blocks of steps are the plain loop: same weights, same log, same resuming; what cannot be replayed says so."""

import pytest
import torch
from lightning import Callback
from pandas.testing import assert_frame_equal
from small_runs import composed, train

from robode.runs.checkpoints import read_checkpoint
from robode.runs.table import BSM_NORMS, METRICS
from robode.training import captured
from robode.training.assembly import assemble
from robode.training.callbacks import BSMLogger, ProjectConstraints
from robode.training.captured import CapturedTraining, block_size, why_not
from robode.training.module import Training
from robode.training.recorder import Recorder

PLAIN = ("trainer=cpu", "trainer.threads=1")
BLOCKS = ("trainer=captured", "trainer.accelerator=cpu", "trainer.threads=1")
EVEN = ("batch_size=15", "callbacks.bsm.every=2")  # 60 points: 4 steps an epoch
RAGGED = ("batch_size=25", "callbacks.bsm.every=3")  # 60 points: 25, 25, 10


@pytest.fixture(autouse=True)
def _outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(run):
    return read_checkpoint(run.last)["state_dict"]


def assert_same_weights(a, b):
    for name, value in weights(a).items():
        torch.testing.assert_close(weights(b)[name], value, rtol=0, atol=0)


def logged(run):
    return METRICS.read(run.folder / "metrics.csv").to_dict("records")


def sensitivities(run):
    return BSM_NORMS.read(run.folder / "bsm.csv")


@pytest.mark.parametrize("shape", [EVEN, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize(
    "words",
    [
        ("epochs=3",),
        ("epochs=3", "model.norm_bound=1", "objective=[cross_entropy,weight_smoothness]", "model.gamma=script_2d"),
        ("epochs=2", "optimizer=adamw", "optimizer.interval=step"),
    ],
    ids=["chnode", "projected", "by step"],
)
def test_the_same_weights_and_the_same_log(shape, words):
    plain, blocks = train(*words, *shape, *PLAIN), train(*words, *shape, *BLOCKS)
    assert plain.folder != blocks.folder
    assert_same_weights(plain, blocks)
    assert_frame_equal(sensitivities(plain), sensitivities(blocks))
    one, two = logged(plain), logged(blocks)
    assert [(row["step"], row["name"]) for row in one] == [(row["step"], row["name"]) for row in two]
    for a, b in zip(one, two, strict=True):
        assert float(b["value"]) == pytest.approx(float(a["value"]), rel=1e-6, abs=1e-12, nan_ok=True)


def test_a_run_that_is_resumed_goes_on_with_the_same_bits():
    whole = train("epochs=4", "run=whole", *EVEN, *BLOCKS)
    half = train("epochs=2", "run=half", *EVEN, *BLOCKS)
    train(f"resume={half.folder}", "epochs=4")
    assert_same_weights(whole, half)
    assert read_checkpoint(half.last)["global_step"] == read_checkpoint(whole.last)["global_step"] == 16
    assert_frame_equal(sensitivities(whole), sensitivities(half), check_exact=True)


def test_what_cannot_be_recorded_is_trained_step_by_step_and_says_so(monkeypatch):
    def refuse(step, device):
        raise RuntimeError("operation not permitted when stream is capturing\nat a place")

    plain = train("epochs=2", *EVEN, *PLAIN)
    monkeypatch.setattr(captured, "recorded", refuse)
    blocks = train("epochs=2", *EVEN, *BLOCKS)
    assert_same_weights(plain, blocks)
    (said,) = (text for text in blocks.status()["warnings"] if "CUDA graph" in text)
    assert said.endswith("operation not permitted when stream is capturing")


def test_a_loss_that_is_not_finite_ends_the_block(capsys):
    from robode.errors import JobFailed

    with pytest.raises(JobFailed, match="loss is"):
        train("epochs=20", "lr=1e30", "integrator=euler", "step=10", *EVEN, *BLOCKS)


class Looks(Callback):
    def on_train_batch_end(self, *given):
        pass


class AtEpochEnds(Callback):
    def on_train_epoch_end(self, *given):
        pass


@pytest.mark.parametrize(
    ("callbacks", "batches", "size"),
    [
        ([ProjectConstraints(), Recorder(), BSMLogger(50)], 600, 50),
        ([Recorder(), BSMLogger(20)], 600, 10),
        ([Recorder(), AtEpochEnds()], 540, 10),
        ([Recorder(), Looks()], 600, 1),  # it does not say when it looks
        ([Recorder()], 469, 1),
        ([AtEpochEnds()], 469, 469),
    ],
)
def test_blocks_end_where_a_callback_looks(callbacks, batches, size):
    assert block_size(callbacks, batches) == size


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("model=chnode", ""),
        ("model=chnode objective=noisy_cross_entropy", "objective=noisy_cross_entropy draws"),
        ("model=chnode objective=margin_cross_entropy objective.margin_cross_entropy.rotation=5", "draws"),
        ("model=chnode objective=margin_cross_entropy", ""),
        ("model=stable_node data=double_moons", "now and then"),
        ("model=chnode optimizer=sgd", "SGD is not one"),
        ("model=chnode trainer.precision=bf16-mixed", "scales the loss"),
        ("model=chnode +trainer.gradient_clip_val=1", "gradient_clip_val changes the loop"),
    ],
)
def test_who_is_trained_in_blocks(words, reason):
    parts = assemble(composed(*BLOCKS, "data.limit_train=100", *words.split()))
    found = why_not(parts.module.config, parts.network, parts.module.objectives)
    assert reason in found and bool(reason) == bool(found)
    assert type(parts.module) is (Training if reason else CapturedTraining)
    assert bool(parts.data.block) is not bool(reason)


@pytest.mark.parametrize("words", ["model=chnode", "model=hdnn", "model=resnet", "model=chnode_lipschitz depth=2"])
def test_a_step_leaves_every_tensor_where_it_lies(words):
    """A graph would go on with what lies in the old place."""
    parts = assemble(composed(*PLAIN, "data.limit_train=100", *words.split()))
    module, x = parts.module, next(iter(parts.data.train_dataloader()))

    def places():
        return {name: value.data_ptr() for name, value in parts.network.state_dict().items()}

    before = places()
    for _ in range(2):
        module.optimizer.zero_grad()
        module.loss_of(*x)[0].backward()
        module.optimizer.step()
        for each in captured.constrained(parts.network):
            each.project_()
    assert places() == before
