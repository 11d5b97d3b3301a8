"""A batch of seeds that is killed, interrupted, or loses one of its seeds."""

import math

import pytest
from batches import LOOSE, TOY, alone, assert_same_run, configs, folders, together

from robode.training import batched_records
from robode.training.batched import train_batched
from robode.training.batched_loop import Batch
from robode.training.checkpoints import read_checkpoint


@pytest.fixture
def eager(monkeypatch):
    """Checkpoints after every epoch."""
    monkeypatch.setattr(batched_records, "SECONDS_BETWEEN_CHECKPOINTS", -1)


@pytest.mark.slow
def test_a_killed_batch_goes_on_together_or_alone(tmp_path, monkeypatch, eager):
    jobs = configs((*TOY, "trainer.precision=32-true", "epochs=4", "optimizer=adam_decay"), 1, 2, 3)
    whole = together(tmp_path / "whole", jobs)
    runs, step, written = folders(tmp_path / "cut", jobs), Batch._step, []

    def killed(self, k):
        if self.clock.current_epoch == 2:
            raise KeyboardInterrupt
        step(self, k)

    monkeypatch.setattr(Batch, "_step", killed)
    monkeypatch.setattr(batched_records.WholeFiles, "save_checkpoint", _only(9, written))  # best and last of 3, then 2
    with pytest.raises(KeyboardInterrupt):
        train_batched(jobs, runs)
    monkeypatch.undo()
    epochs = [read_checkpoint(run.last)["epoch"] for run in runs]
    assert set(epochs) == {0, 1}, "killed between the checkpoints of two seeds"
    assert_same_run(whole[0], alone(jobs[0], runs[0].folder, resume=True), LOOSE)
    assert train_batched(jobs, runs) == [None] * 3
    for one, two in zip(whole, runs, strict=True):
        assert_same_run(one, two, LOOSE)


def _only(count, written):
    """Lets `count` files be written, and no more, as a kill would."""
    save = batched_records.WholeFiles.save_checkpoint

    def save_checkpoint(self, checkpoint, path):
        written.append(path)
        if len(written) > count:
            raise KeyboardInterrupt
        save(self, checkpoint, path)

    return save_checkpoint


def test_an_interrupted_batch_keeps_its_last_whole_epoch(tmp_path, monkeypatch):
    """Although five seconds have not passed since the last checkpoint."""
    jobs = configs((*TOY, "epochs=4"), 1, 2)
    runs, step = folders(tmp_path, jobs), Batch._step

    def interrupted(self, k):
        if self.clock.current_epoch == 3 and k == 1:
            raise KeyboardInterrupt
        step(self, k)

    monkeypatch.setattr(Batch, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_batched(jobs, runs)
    assert [run.status()["epoch"] for run in runs] == [3, 3]
    assert [read_checkpoint(run.last)["epoch"] for run in runs] == [2, 2]


@pytest.mark.parametrize("words", [(), ("model.gamma=differentiable",)], ids=["side by side", "in turns"])
def test_a_seed_that_diverges_spoils_no_other(words, tmp_path, monkeypatch, eager, capsys):
    jobs = configs((*TOY, *words, "epochs=2"), 1, 2, 3)
    gathered = Batch._gathered

    def poisoned(self, k):
        x, labels = gathered(self, k)
        if self.clock.global_step == 3 and len(self.seats) == 3:
            x[1] = math.nan
        return x, labels

    monkeypatch.setattr(Batch, "_gathered", poisoned)
    runs = folders(tmp_path, jobs)
    first, failure, third = train_batched(jobs, runs)
    assert first is None and third is None
    assert "step 3" in str(failure) and "data are not finite" in str(failure)
    assert runs[1].status()["status"] == "failed" and runs[1].status()["error"] == str(failure)
    assert all(v.isfinite().all() for v in read_checkpoint(runs[1].last)["state_dict"].values())
    assert "seed 2 failed" in capsys.readouterr().out
    monkeypatch.undo()
    assert_same_run(alone(jobs[2], tmp_path / "alone"), runs[2])


def test_weights_that_cannot_be_projected_leave_the_batch(tmp_path, monkeypatch):
    jobs = configs((*TOY, "epochs=1"), 1, 2)
    project = Batch._project

    def broken(self):
        if self.clock.global_step == 1:
            next(self.seats[0].network.parameters()).data.fill_(math.nan)
        project(self)

    monkeypatch.setattr(Batch, "_project", broken)
    failure, none = train_batched(jobs, folders(tmp_path, jobs))
    assert none is None and "step 1 (epoch 1)" in str(failure) and "not finite" in str(failure)
