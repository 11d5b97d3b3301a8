"""Run folders: names, claims, finding them again, and files that are whole."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from small_runs import composed

from robode.config.validate import check_name
from robode.errors import BadInput, JobFailed
from robode.files import write_json
from robode.runs.identity import differences, run_id
from robode.runs.origin import relative_argv
from robode.runs.run import Run, checkpoint_path, create, find, locate, plain_of, set_aside
from robode.runs.table import METRICS

DATA = "0123456789ab"
CONFIG = composed("seed=3", "lr=0.1")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(**changes):
    return replace(CONFIG, **changes)


def made(**changes):
    cfg = config(**changes)
    return create(locate(cfg, DATA), cfg)


def test_one_training_has_one_folder_and_another_has_another():
    first = made()
    assert first.folder.name == run_id(CONFIG.plain(), DATA) and made() == first
    assert made(lr=0.2) != first and create(locate(config(), "other data"), config()) != first
    assert first.status()["status"] == "queued" and not first.trained
    assert OmegaConf.load(first.folder / "config.yaml").depth == 8


def test_a_run_that_was_extended_gives_its_first_training_another_folder():
    """resume=RUN epochs=20 leaves a run whose name says 10 epochs: it is not the run of 10 epochs any more."""
    first = made()
    first.save_config(config(epochs=20))
    second = made()
    assert second.folder.name == f"{first.folder.name}-2" and locate(config(), DATA) == second


def test_a_chosen_name_belongs_to_one_training():
    assert made(run="mine") == made(run="mine", suite={"clean": CONFIG.suite["clean"]})
    with pytest.raises(BadInput, match="has lr=0.1, not 0.2; choose another name or resume=mine"):
        made(run="mine", lr=0.2)
    with pytest.raises(BadInput, match="letters"):
        check_name("../mine")


def test_what_is_set_aside_is_kept_and_not_found_any_more():
    run = made()
    run.update(trained=True)
    set_aside(run)
    assert list(run.folder.iterdir()) == []
    (shelf,) = (run.folder.parent / ".replaced").iterdir()
    assert Run(shelf).status()["trained"]
    again = made()
    assert again == run and find(run.id)[0] == run and not again.status()["trained"]


def test_a_killed_run_does_not_count_as_running():
    run = made()
    run.update(status="running", heartbeat=time.time())
    assert run.state == "running"
    run.update(heartbeat=time.time() - 3600)
    assert run.state == "interrupted"
    assert Run(run.folder / "nowhere").state == "not started"


def test_stored_configuration_is_resolved_and_read_back():
    run = made(run="mine")
    text = (run.folder / "config.yaml").read_text()
    assert "${" not in text and "allowed" not in text
    again = run.config()
    assert {**again.plain(), "model": None} == {**run.config().plain(), "model": None}
    assert (again.depth, again.model.arguments) == (8, CONFIG.model.arguments)
    assert differences(again.plain(), CONFIG.plain()) == []


def test_whoever_reads_a_configuration_gets_one_of_his_own():
    text = "model: {name: chnode, sizes: [1, 2]}"
    first = plain_of(text)
    first["model"]["sizes"].append(3)
    assert plain_of(text) == {"model": {"name": "chnode", "sizes": [1, 2]}}


def test_find_by_folder_name_and_checkpoint(tmp_path):
    run = made(experiment="chnode_2022/table1")
    (run.folder / "epoch3.ckpt").write_bytes(b"")
    assert str(run.folder).startswith("outputs/chnode_2022/table1/")
    assert find(run.folder) == (run, None)
    assert find(str(tmp_path / run.folder))[0].folder == tmp_path / run.folder
    assert find(run.id) == (run, None)
    assert find(run.folder / "epoch3.ckpt") == (run, "epoch3.ckpt")
    for there in (tmp_path / run.id, tmp_path / "there"):  # no run, though it has the name of one
        there.mkdir()
    assert find(run.id) == (run, None)
    (tmp_path / run.id).rmdir()
    (tmp_path / run.id).touch()
    assert find(run.id) == (run, None)
    with pytest.raises(BadInput, match="^run=there: expected the folder of a run, but there is no config.yaml in"):
        find("there")


@pytest.mark.parametrize("where", ["nothing", "no/such/folder", ".", "*", "[", "../..", "/"])
def test_what_is_not_a_run_is_refused_in_one_line(where):
    made()
    with pytest.raises(BadInput) as refusal:
        find(where, key="resume")
    assert str(refusal.value).startswith(f"resume={where}")


def test_two_runs_of_one_name_are_told_apart():
    first, second = (made(run="mine", experiment=e) for e in ("a", "b"))
    with pytest.raises(BadInput, match="several"):
        find("mine")
    assert find(second.folder)[0] == second != first


def test_best_falls_back_to_last():
    run = made()
    with pytest.raises(BadInput, match="first epoch"):
        checkpoint_path(run, "best")
    run.last.touch()
    assert checkpoint_path(run, "best") == run.last
    run.best.touch()
    assert checkpoint_path(run, "best") == run.best
    with pytest.raises(BadInput, match="best.ckpt, last.ckpt"):
        checkpoint_path(run, "other")


def test_damaged_or_hostile_configuration_is_refused():
    run = made()
    for text in ("a: [", "- 1", "model: {_target_: os.system}", "hydra: {callbacks: {}}"):
        (run.folder / "config.yaml").write_text(text)
        with pytest.raises(BadInput) as refusal:
            run.config()
        assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_disk_by_permission(tmp_path):
    (tmp_path / "outputs").mkdir(mode=0o500)
    with pytest.raises(JobFailed, match="cannot write"):
        made()


def test_disk_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(JobFailed, match="cannot write"):
        made()


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


def test_warning_is_kept_once():
    run = made()
    assert run.warn("J has no effect")
    assert not run.warn("J has no effect")
    assert run.status()["warnings"] == ["J has no effect"]


def test_command_line_is_kept_without_absolute_paths(tmp_path):
    argv = ["/usr/bin/robode", "train", f"data.root={tmp_path}/data", "depth=4", str(tmp_path / "conf")]
    assert relative_argv(argv) == ["robode", "train", "data.root=data", "depth=4", "conf"]


def test_a_run_folder_of_an_earlier_version_opens_in_todays_words():
    """A class that has moved is found by its name, model.ends is encoder and head; what is of others stays."""
    run = made(run="old")
    plain = CONFIG.plain()
    for key in ("encoder", "head", "code", "seeds"):
        del plain[key]
    plain["model"] |= {"_target_": "robode.fields.elsewhere.CHNode", "ends": "orthonormal"}
    plain["protocol"]["name"] = "sound"
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(plain))
    found = run.config()
    assert found.model.target == "robode.families.chnode.CHNode" and "ends" not in found.model.arguments
    assert found.head.target == "robode.heads.Orthonormal" and found.encoder.arguments == {"bounded": True}
    assert found.optimizer.optimizer.target == "torch.optim.Adam" and found.protocol == CONFIG.protocol


def test_a_key_that_nobody_reads_is_refused_in_a_run_folder_too():
    run = made(run="odd")
    plain = CONFIG.plain() | {"deptj": 3}
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(plain))
    with pytest.raises(BadInput, match=r"odd/config.yaml: unknown key 'deptj': did you mean 'depth'\?"):
        run.config()


@pytest.mark.parametrize("value", [torch.tensor(0.25), np.float32(0.25), 0.25])
def test_a_number_is_written_as_one_whatever_library_it_is_of(value: object, tmp_path: Path) -> None:
    """A family may say its constant as a tensor; a table with its text in it could never be read again."""
    METRICS.append(tmp_path / "metrics.csv", [{"epoch": 0, "step": 1, "name": "loss", "value": value}])
    assert METRICS.read(tmp_path / "metrics.csv")["value"].tolist() == [0.25]
