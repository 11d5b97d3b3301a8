"""Run folders: names, claims, finding them again, and files that are whole."""

import json
import os

import pytest
from omegaconf import OmegaConf

from robode.environment import relative_argv
from robode.errors import BadInput, JobFailed
from robode.job import job
from robode.runs import Run, checkpoint_path, config_hash, create, find, run_id, write_json

CONFIG = {
    "model": {"name": "chnode"}, "depth": 8, "seed": 3, "lr": 0.1, "run": None, "resume": None, "logger": None,
    "experiment": "default", "data": {"name": "mnist5k", "root": "data"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(**changes):
    return OmegaConf.create({**CONFIG, **changes})


def test_name_says_model_depth_seed_and_configuration():
    assert run_id(CONFIG) == f"chnode-N8-s3-{config_hash(CONFIG)[:8]}"
    assert config_hash({**CONFIG, "lr": 0.2}) != config_hash(CONFIG)


def test_hash_ignores_what_does_not_change_the_result():
    moved = {**CONFIG, "run": "x", "logger": {"csv": {}}, "data": {"name": "mnist5k", "root": "elsewhere"}}
    assert config_hash(moved) == config_hash(CONFIG)
    assert moved["data"]["root"] == "elsewhere", "hashing must not change the configuration"


def test_each_job_gets_its_own_folder():
    folders = [create(config()).folder for _ in range(3)]
    assert [folder.name for folder in folders] == [run_id(CONFIG) + end for end in ("", "-2", "-3")]
    assert all(OmegaConf.load(folder / "config.yaml").depth == 8 for folder in folders)


def test_named_run_is_not_overwritten():
    create(config(run="mine"))
    with pytest.raises(BadInput, match="resume=mine"):
        create(config(run="mine"))
    with pytest.raises(BadInput, match="letters"):
        create(config(run="../mine"))


def test_stored_configuration_is_resolved():
    run = create(config(twice="${depth}", run="mine"))
    assert "${" not in (run.folder / "config.yaml").read_text()


def test_find_by_folder_name_and_checkpoint(tmp_path):
    run = create(config(experiment="chnode_2022/table1"))
    (run.folder / "epoch3.ckpt").write_bytes(b"")
    assert str(run.folder).startswith("outputs/chnode_2022/table1/")
    assert find(run.folder) == (run, None)
    assert find(str(tmp_path / run.folder))[0].folder == tmp_path / run.folder
    assert find(run.id) == (run, None)
    assert find(run.folder / "epoch3.ckpt") == (run, "epoch3.ckpt")


@pytest.mark.parametrize("where", ["nothing", "no/such/folder", ".", "*", "[", "../..", "/"])
def test_what_is_not_a_run_is_refused_in_one_line(where):
    create(config())
    with pytest.raises(BadInput) as refusal:
        find(where, key="resume")
    assert str(refusal.value).startswith(f"resume={where}")


def test_two_runs_of_one_name_are_told_apart():
    first, second = (create(config(run="mine", experiment=e)) for e in ("a", "b"))
    with pytest.raises(BadInput, match="several"):
        find("mine")
    assert find(second.folder)[0] == second != first


def test_best_falls_back_to_last():
    run = create(config())
    with pytest.raises(BadInput, match="first epoch"):
        checkpoint_path(run, "best")
    run.last.touch()
    assert checkpoint_path(run, "best") == run.last
    run.best.touch()
    assert checkpoint_path(run, "best") == run.best
    with pytest.raises(BadInput, match="best.ckpt, last.ckpt"):
        checkpoint_path(run, "other")


def test_damaged_or_hostile_configuration_is_refused():
    run = create(config())
    for text in ("a: [", "- 1", "model: {_target_: os.system}", "hydra: {callbacks: {}}"):
        (run.folder / "config.yaml").write_text(text)
        with pytest.raises(BadInput) as refusal:
            run.config()
        assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_disk_by_permission(tmp_path):
    (tmp_path / "outputs").mkdir(mode=0o500)
    with pytest.raises(JobFailed, match="cannot write"):
        create(config())


def test_disk_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(JobFailed, match="cannot write"):
        create(config())


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_json(path, {"epoch": 1})

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(JobFailed, match="No space left"):
        write_json(path, {"epoch": 2})
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "status", "seen"),
    [
        (KeyboardInterrupt(), "interrupted", KeyboardInterrupt),
        (SystemExit(143), "interrupted", SystemExit),
        (JobFailed("loss is nan"), "failed", JobFailed),
        (OSError(28, "No space left on device"), "failed", JobFailed),
        (KeyError("bug"), "failed", KeyError),
    ],
)
def test_status_tells_how_a_job_ended(error, status, seen):
    run = create(config())
    with pytest.raises(seen), job(run):
        assert run.status()["status"] == "running"
        raise error
    assert run.status()["status"] == status
    with job(run):
        pass
    assert run.status() == {"status": "done", "epoch": 0, "step": 0, "warnings": [], "error": None}


def test_one_job_at_a_time():
    run = create(config())
    with job(run), pytest.raises(BadInput, match="another process"), job(Run(run.folder)):
        pass


def test_warning_is_kept_once():
    run = create(config())
    assert run.warn("J has no effect")
    assert not run.warn("J has no effect")
    assert run.status()["warnings"] == ["J has no effect"]


def test_command_line_is_kept_without_absolute_paths(tmp_path):
    argv = ["/usr/bin/robode", "train", f"data.root={tmp_path}/data", "depth=4", str(tmp_path / "conf")]
    assert relative_argv(argv) == ["robode", "train", "data.root=data", "depth=4", "conf"]
