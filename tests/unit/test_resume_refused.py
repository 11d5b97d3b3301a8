"""What cannot be resumed is said in one line, and a finished run is whole whatever happens to its continuation."""

import resource
from dataclasses import replace

import pytest
import torch
from small_runs import train

from robode.errors import BadInput, JobFailed
from robode.training.checkpoints import WholeFiles
from robode.training.plan import lengths


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs go into tmp_path; figures have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def test_resume_of_a_finished_run_only_evaluates(run_of_one_epoch):
    run = run_of_one_epoch
    saved = run.last.read_bytes()
    train(f"resume={run.id}")
    assert run.last.read_bytes() == saved
    assert run.status()["status"] == "done"


def test_resume_refuses_another_model(run_of_one_epoch):
    run = run_of_one_epoch
    with pytest.raises(BadInput, match="depth"):
        train(f"resume={run.id}", "depth=3")


def test_resume_refuses_fewer_epochs_than_were_done():
    run = train("epochs=2")
    with pytest.raises(BadInput, match="has done 2 already") as refusal:
        train(f"resume={run.id}", "epochs=1")
    assert "\n" not in str(refusal.value)
    assert run.config().epochs == 2 and run.status()["status"] == "done"


def test_resume_refuses_to_stretch_a_schedule_made_for_the_epochs():
    run = train("epochs=2", "optimizer=sgd")
    with pytest.raises(BadInput, match=r"laid out for 2 epochs \(optimizer.scheduler.T_max\)"):
        train(f"resume={run.id}", "epochs=3")
    train(f"resume={run.id}", "epochs=2")
    assert run.config().epochs == 2


def test_a_schedule_inside_another_is_found():
    inner = [{"_target_": "LinearLR", "total_iters": 5}, {"_target_": "OneCycleLR", "total_steps": 90}]
    assert lengths({"_target_": "SequentialLR", "schedulers": inner, "milestones": [5]}) == ["total_steps"]
    assert lengths(None) == lengths({"_target_": "ExponentialLR", "gamma": 0.8}) == []


def test_damaged_checkpoint_is_one_line(run_of_one_epoch):
    run = run_of_one_epoch
    run.last.write_bytes(run.last.read_bytes()[:1000])
    with pytest.raises(BadInput, match="damaged"):
        train(f"resume={run.id}", "epochs=2")


def test_checkpoint_of_another_shape_is_one_line(run_of_one_epoch):
    run = run_of_one_epoch
    run.save_config(replace(run.config(), depth=3))
    with pytest.raises(BadInput, match="another network") as refusal:
        train(f"resume={run.id}", "epochs=2")
    assert "\n" not in str(refusal.value)


def test_a_full_disk_leaves_a_whole_checkpoint(run_of_one_epoch):
    """last.ckpt cannot be written: the previous one stays, no draft is left, and with room the same words go on."""
    run = run_of_one_epoch
    saved = run.last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(saved) // 2, limits[1]))
    try:
        with pytest.raises(JobFailed, match=r"^cannot write .*last\.ckpt: File too large$"):
            WholeFiles().save_checkpoint({"x": torch.zeros(len(saved))}, run.last)
        with pytest.raises(JobFailed, match=r"^cannot write .*\.ckpt: File too large$"):
            train(f"resume={run.id}", "epochs=2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.last.read_bytes() == saved
    assert (run.status()["status"], run.status()["epoch"]) == ("failed", 1)
    assert not [path for path in run.folder.glob(".*") if not path.name.endswith("lock")]
    train(f"resume={run.id}", "epochs=2")
    assert (run.status()["status"], run.status()["epoch"]) == ("done", 2)
