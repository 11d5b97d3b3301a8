"""A run's folder may come from anybody, and any of its files may be damaged: nothing is written outside it, nothing is
looked up for it, and one that cannot be read costs nobody else anything."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from small_runs import SMALL, composed

from robode.api.evaluation import run_evaluation
from robode.cli.main import main
from robode.errors import BadInput, JobFailed
from robode.runs.origin import seconds_of
from robode.runs.results import read_rows
from robode.runs.run import Run, set_aside
from robode.runs.table import BSM_NORMS, METRICS
from robode.training.forecast import forecast


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They have tests of their own."""
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.fixture
def run(run_of_one_epoch):
    return run_of_one_epoch


def evaluate(run, *words):
    return run_evaluation(composed(f"run={run.folder}", "suite=clean", *words, verb="evaluate"))


def state(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", [".evaluation.lock", ".lock", ".results.csv.lock", "results.csv", "figures", "scores", "status.json"]
)
def test_a_link_in_a_runs_folder_leads_nothing_out_of_it(run, tmp_path, name):
    """The lock's file was emptied, and figures were written where the link led."""
    victim = tmp_path / "victim"
    place = run.folder / name
    if place.is_dir():
        shutil.rmtree(place)
        victim.mkdir()
    else:
        place.unlink(missing_ok=True)
        victim.write_text("precious")
    before = victim.read_text() if victim.is_file() else []
    place.symlink_to(victim)
    with pytest.raises(BadInput, match=f"{name}: is a link, and nothing is written outside a run's folder"):
        evaluate(run, "limit=50")
    assert main(["train", f"resume={run.id}", "epochs=2"]) == 2
    assert (victim.read_text() if victim.is_file() else list(victim.iterdir())) == before


def test_a_second_name_of_a_file_elsewhere_is_not_written_to(run, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (run.folder / ".lock").unlink()
    os.link(tmp_path / "victim", run.folder / ".lock")
    with pytest.raises(BadInput, match="is a link"):
        evaluate(run, "limit=50")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_draft_that_somebody_has_laid_as_a_link_is_not_written_through(tmp_path, monkeypatch):
    from robode import files

    monkeypatch.setattr(files.threading, "get_ident", lambda: 7)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".a.json.{os.getpid()}.7").symlink_to(tmp_path / "victim")
    files.write_json(tmp_path / "a.json", {"b": 1})
    assert (tmp_path / "victim").read_text() == "precious" and json.loads((tmp_path / "a.json").read_text()) == {"b": 1}


def test_what_is_set_aside_goes_through_no_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.folder.parent / ".replaced").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        set_aside(run)
    assert run.exists and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_a_run_whose_folder_is_a_link_is_the_users_own_choice(run, tmp_path):
    os.rename(run.folder, tmp_path / "on_another_disk")
    run.folder.symlink_to(tmp_path / "on_another_disk")
    assert evaluate(run, "limit=50").score is not None


@pytest.mark.parametrize("secret", ["${oc.env:ROBODE_SECRET}", r"\x24{oc.env:ROBODE_SECRET}", "${data.name}"])
def test_nothing_is_looked_up_for_a_received_configuration(run, secret, monkeypatch, capsys):
    monkeypatch.setenv("ROBODE_SECRET", "hunter2")
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("experiment: default", f'experiment: "{secret}"'))
    assert main(["evaluate", f"run={run.folder}", "suite=clean", "limit=50"]) == 2
    assert main(["export", f"run={run.folder}", "to=out"]) == 2
    assert main(["report", str(run.folder)]) == 2
    said = capsys.readouterr()
    assert "expected plain values, got references" in said.err and "hunter2" not in said.out + said.err
    assert not Path("out").exists()


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


def test_a_configuration_that_would_fill_the_memory_is_refused(run, capsys):
    """A billion laughs: thirty lines that stand for 9^29 texts."""
    path = run.folder / "config.yaml"
    path.write_text(path.read_text() + LAUGHS + "model: *a29\n")
    with pytest.raises(BadInput, match="expected plain values, got references"):
        run.config()
    path.write_text(LAUGHS + "model: *a29\n")
    assert main(["evaluate", f"run={run.folder}", "suite=clean"]) == 2


def test_hostile_metadata_of_exported_weights_are_texts_that_nobody_runs(run):
    """What stands in the header of a safetensors file is text; reading it back gives tensors and texts alone."""
    reader = pytest.importorskip("safetensors")
    from safetensors.torch import load_file, save_file

    assert main(["export", f"run={run.folder}", "to=out"]) == 0
    tensors = load_file("out/model.safetensors")
    hostile = {"robode": "${oc.env:HOME}", "weights": "__import__('os').system('touch owned')", "=1+1": "\x1b[2J"}
    save_file(tensors, "out/model.safetensors", metadata=hostile)
    with reader.safe_open("out/model.safetensors", "pt") as file:
        assert file.metadata() == hostile
    assert main(["export", f"run={run.folder}", "to=out"]) == 0, "an earlier export is replaced, whatever it says"
    with reader.safe_open("out/model.safetensors", "pt") as file:
        assert set(file.metadata()) == {"robode", "weights"} and len(file.metadata()["weights"]) == 12
    assert not Path("owned").exists()


@pytest.mark.slow
def test_no_place_of_this_machine_stands_in_an_export_or_a_page(run, tmp_path):
    place = str(tmp_path / "private" / "datasets")
    path = run.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["root"] = place
    config["resume"] = f"{place}/run"
    path.write_text(OmegaConf.to_yaml(config))
    run.update(status="failed", error=f"cannot write {place}/x: No space left on device")
    assert main(["export", f"run={run.folder}", "to=out"]) == 0
    assert main(["evaluate", f"run={run.folder}", "suite=clean", "limit=40"]) == 0
    for file in ("out/config.yaml", "out/certificate.json", run.folder / "report.html"):
        assert str(tmp_path) not in Path(file).read_text(), file
    assert yaml.safe_load(Path("out/config.yaml").read_text())["data"]["root"] == "datasets"


DAMAGE = {
    "config.yaml": ["", "model: {_target", "- 1", "model: 7"],
    "results.csv": ["a,b\n1,2\n", "\xff\xfe\n\x00\n", "{header}\n{row:score=99999999}\n", "{header}\n{row:n=abc}\n"],
}


def damaged(run, name, content):
    """`run` with a file that holds content; {row:key=value} is a row of it with another value."""
    path = run.folder / name
    if "{header}" in content:
        header, row = path.read_text().splitlines()[:2]
        key, value = content.split("row:")[1].split("}")[0].split("=")
        cells = row.split(",")
        cells[header.split(",").index(key)] = value
        content = f"{header}\n{','.join(cells)}\n"
    path.write_bytes(content.encode("latin-1"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content"), [(name, each) for name, all_ in DAMAGE.items() for each in all_])
def test_a_damaged_run_is_named_and_left_out_and_refused_where_it_was_asked_for(run, name, content, capsys):
    other = Run(run.folder.with_name("broken"))
    shutil.copytree(run.folder, other.folder)
    damaged(other, name, content)
    before = state(other.folder)
    assert main(["report", "to=all"]) == 0
    said = capsys.readouterr()
    assert f"left out: {other.folder}/{name}" in said.out and said.err == ""
    assert main(["report", str(other.folder)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"{other.folder}/{name}" in line and "unexpected" not in line
    assert main(["train", "--dry-run", *SMALL, "epochs=7"]) == 0, "an unrelated job"
    if name == "config.yaml":
        assert main(["evaluate", f"run={other.folder}", "suite=clean"]) == 2
    assert state(other.folder) == before


def test_counts_of_an_earlier_version_that_cannot_be_are_refused(run):
    """correct=99999999 of 4000 was 1.25e6 %."""
    path = run.folder / "results.csv"
    text = path.read_text().splitlines()
    at = text[0].split(",").index("score")
    for value in ("99999999", "abc", ""):
        cells = text[1].split(",")
        cells[at] = value
        path.write_text(f"{text[0].replace('score,', 'correct,')}\n{','.join(cells)}\n")
        with pytest.raises(BadInput, match="damaged, score="):
            read_rows(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "status",
    [
        {"owner": 7, "status": "running"}, {"owner": {}, "status": "running"}, {"epoch": "three", "step": None},
        {"heartbeat": "now", "status": "running"}, {"warnings": "many"}, {"trained": "yes"}, [1], "text",
    ],
)  # fmt: skip
def test_an_odd_status_is_read_as_far_as_it_makes_sense(run, status, capsys):
    content = {**run.status(), **status} if isinstance(status, dict) else status
    (run.folder / "status.json").write_text(json.dumps(content))
    assert run.state in ("running", "interrupted", "done", "not started")
    assert forecast([composed(*SMALL, "epochs=3")])[0].state == "not started"
    assert evaluate(run, "limit=30").score is not None
    assert main(["report", str(run.folder), "to=all"]) == 0


def test_odd_notes_about_a_run_count_for_nothing(run):
    path = run.folder / "environment.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "earlier": 7, "wall_seconds": "long", "versions": [], "threads": "all"}))
    assert seconds_of(run.folder) == 0
    assert forecast([composed(*SMALL, "epochs=3")])[0].seconds is None
    assert main(["report", str(run.folder), "to=all"]) == 0


def test_a_folder_that_is_deleted_while_it_is_measured_fails_the_job(run, monkeypatch):
    """The tables made it anew, with what came after."""
    from robode.runs import results

    written = results.write_scores

    def deleted(folder, row, scores):
        shutil.rmtree(run.folder, ignore_errors=True)
        written(folder, row, scores)

    monkeypatch.setattr(results, "write_scores", deleted)
    with pytest.raises(JobFailed, match="cannot write"):
        evaluate(run, "limit=50")
    with pytest.raises(JobFailed, match="cannot write"):
        METRICS.append(run.folder / "metrics.csv", [{"epoch": 1, "step": 1, "name": "a", "value": 1.0}])
    with pytest.raises(JobFailed, match="cannot write"):
        BSM_NORMS.append(run.folder / "bsm.csv", [{"step": 1, "layer": 1}])
    assert not run.folder.exists()
