"""robode train -m hydra/launcher=…: however one job ends, the others are done, and all are told of at the end."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer
from launched_work import ENDINGS, work, work_for_ever
from own_paper import ITEM, write_own_paper

from robode.cli.main import main
from robode.config.compose import Request, compose_jobs
from robode.config.jobs import Outcome
from robode.launch.launch import check_launcher, launch
from robode.runs.results import RESULTS
from robode.runs.run import find

TESTS = Path(__file__).parents[1]


@pytest.fixture
def launched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Outcome]]:
    """`robode train -m` from an empty folder, with `launched_work.work` where training would begin."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{':'.join(sys.path)}")

    def run(*words: str) -> list[Outcome]:
        request = Request("train", words, multirun=True)
        check_launcher(request)
        return launch(request, compose_jobs(request), work, folder / "sweep")

    return run


@pytest.fixture
def own_paper(folder: Path) -> Path:
    return write_own_paper(folder)


def installed(launcher: str) -> None:
    """Skip the test where the launcher needs what the tests' own extra does not install."""
    if launcher == "ray":
        pytest.importorskip("ray", reason="robode[ray] is not installed")


def runs(process: int) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False).stdout
    return bool(said.strip()) and not said.startswith("Z")


def calls(folder: Path, depth: int) -> int:
    return len(list(folder.glob(f"{depth}-*.call")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "endings"),
    [("joblib", ENDINGS[:4]), ("submitit_local", ENDINGS), ("ray", ENDINGS[:4])],
)
def test_however_a_job_ends_the_others_are_done(
    launcher: str, endings: tuple[str, ...], folder: Path, launched: Callable[..., list[Outcome]]
) -> None:
    installed(launcher)
    depths = ",".join(str(number + 1) for number in range(len(endings)))
    outcomes = launched(f"hydra/launcher={launcher}", f"depth={depths}")
    assert [outcome.overrides for outcome in outcomes] == [(f"depth={n + 1}",) for n in range(len(endings))]
    states = dict(zip(endings, outcomes, strict=True))
    failed = states.pop("fails")
    assert (failed.state, failed.code, failed.error) == ("failed", 1, "NaN loss")
    if "is always killed" in states:
        lost = states.pop("is always killed")
        assert (lost.state, lost.code) == ("failed", 1) and "ended without a word" in lost.error
        assert calls(folder, 6) == 2  # once more
    assert {each.state for each in states.values()} == {"done"}
    assert outcomes[3].result is not None and outcomes[3].result.score == 0.4
    if launcher == "submitit_local":  # the other one starts anew with what ran beside a killed process
        assert [calls(folder, depth) for depth in (2, 3, 4)] == [1, 2, 2]
    if launcher == "ray":  # nothing is lost by a process that is killed, nothing done twice
        assert [calls(folder, depth) for depth in (1, 2, 3, 4)] == [1, 1, 2, 2]


@pytest.mark.slow
def test_ctrl_c_interrupts_the_jobs_of_ray_and_ends_its_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    installed("ray")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{':'.join(sys.path)}")
    request = Request("train", ("hydra/launcher=ray", "depth=1,2,3"), multirun=True)
    driver, done = os.getpid(), threading.Event()

    def ctrl_c() -> None:
        while not list(folder.glob("*.call")) and not done.wait(0.1):
            pass
        if not done.is_set():
            os.kill(driver, signal.SIGINT)

    threading.Thread(target=ctrl_c).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(request, compose_jobs(request), work_for_ever, folder / "sweep")
    finally:
        done.set()
    assert "the same command goes on" in capfd.readouterr().out
    began = {int(path.stem) for path in folder.glob("*.call")}
    assert began and began == {int(path.stem) for path in folder.glob("*.interrupted")}
    end = time.monotonic() + 10
    while (left := [process for process in began if runs(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.launcher.num_cpus=0"], "hydra.launcher.num_cpus=0: expected a number > 0"),
        (["hydra.launcher.num_cpus=9999"], "hydra.launcher.num_cpus=9999: a job asks for more cores than this machine"),
        (["+hydra.launcher.colour=red"], "hydra/launcher=ray: Invalid option keyword colour"),
    ],
)
def test_what_ray_cannot_do_is_refused(words: list[str], said: str, robode: Callable[..., Answer]) -> None:
    installed("ray")
    answer = robode("train", "-m", "hydra/launcher=ray", *words, "depth=1,2")
    assert answer.code == 2 and said in answer.line


@pytest.mark.slow
def test_seeds_are_jobs_and_fail_fast_leaves_out_the_rest(folder: Path, launched: Callable[..., list[Outcome]]) -> None:
    words = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "fail_fast=true", "depth=1,2", "seeds=2")
    outcomes = launched(*words)
    assert [outcome.state for outcome in outcomes] == ["done", "done", "failed", "skipped"]
    assert [outcome.overrides[-1] for outcome in outcomes] == ["seed=1", "seed=2"] * 2
    assert len(list(folder.glob("*.call"))) == 3


def test_a_launcher_that_cannot_start_anything_fails_every_job_once(
    folder: Path, launched: Callable[..., list[Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def broken(*given: object) -> str:
        tried.append(given)
        return " (no queue)"

    monkeypatch.setattr("robode.launch.launch._once", broken)
    outcomes = launched("hydra/launcher=joblib", "depth=1,2")
    assert len(tried) == 1 and [outcome.state for outcome in outcomes] == ["failed"] * 2
    assert outcomes[0].error.startswith("it was never begun (no queue); see ")


@pytest.mark.slow
def test_gpus_that_this_machine_lacks_fail_every_job_with_that_reason(
    launched: Callable[..., list[Outcome]],
) -> None:
    installed("ray")
    (outcome,) = launched("hydra/launcher=ray", "hydra.launcher.num_gpus=9999", "depth=1")
    assert outcome.error.startswith("it was never begun (this machine has less than the num_cpus=1 num_gpus=9999")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submitit_local", "hydra.launcher.at_once=0"], "hydra.launcher.at_once=0: expected a whole number >= 1"),
        (["submitit_local", "+hydra.launcher.nodes=2"], "unexpected keyword argument 'nodes'"),
        (["submitit_local", "hydra.launcher.at_once=1,2"], "hydra.launcher.at_once"),
        (["submitit_local", "hydra.launcher.at_one=1"], "hydra.launcher.at_one"),
        (["elsewhere"], "choose one of: joblib, ray, submitit_local, submitit_slurm"),
    ],
)
def test_a_launcher_that_cannot_work_is_refused(words: list[str], said: str, robode: Callable[..., Answer]) -> None:
    answer = robode("train", "-m", f"hydra/launcher={words[0]}", *words[1:], "depth=1,2")
    assert answer.code == 2 and said in answer.line


def test_a_launcher_that_is_not_installed_says_which_extra_it_needs(
    robode: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robode.launch.launch._there", lambda module: False)
    for launcher, extra in (("joblib", "sweep"), ("submitit_slurm", "sweep"), ("ray", "ray")):
        answer = robode("train", "-m", f"hydra/launcher={launcher}", "depth=1,2")
        assert answer.code == 2 and f"robode[{extra}]" in answer.line


def test_without_slurm_its_launcher_is_refused(robode: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = robode("train", "-m", "hydra/launcher=submitit_slurm", "depth=1,2")
    assert answer.code == 2 and "srun" in answer.line


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_a_table_is_trained_and_measured_where_the_launcher_puts_its_jobs(
    launcher: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    installed(launcher)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    write_own_paper(folder)
    command = ["reproduce", ITEM, "size=smoke", f"launcher={launcher}", "repeats=1"]
    assert main(command) == 0
    out = capfd.readouterr().out
    assert "2 jobs launched" in out and re.search("job 2 of 2, .*H-DNN.*seed 1: done", out)
    runs = [find(path.parent)[0] for path in sorted(Path("outputs").glob("moons_2026/*/*/config.yaml"))]
    owners = {run.status()["owner"]["pid"] for run in runs}
    assert len(runs) == 2 and os.getpid() not in owners
    for run in runs:  # the evaluations too were made there
        assert {"train", "test"} == set(RESULTS.read(run.folder / "results.csv")["split"])
    assert main(command) == 0
    assert "2 jobs, 2 of them complete" in capfd.readouterr().out


def test_a_launcher_of_a_reproduction_is_looked_at_first(own_paper: Path, robode: Callable[..., Answer]) -> None:
    answer = robode("reproduce", ITEM, "launcher=submitit_local", "hydra.launcher.at_once=0")
    assert answer.code == 2 and answer.line == "hydra.launcher.at_once=0: expected a whole number >= 1"
    answer = robode("reproduce", ITEM, "launcher=elsewhere")
    assert answer.code == 2 and "choose one of: joblib" in answer.line
    answer = robode("reproduce", ITEM, "hydra.launcher.at_once=2")
    assert answer.code == 2 and "without launcher=NAME" in answer.line
