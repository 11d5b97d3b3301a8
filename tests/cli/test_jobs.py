"""From a command line to jobs: what they get, and how their ends become exit codes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, Jobs
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from robode.config.config import TrainConfig
from robode.errors import BadInput, Busy, JobFailed


def test_defaults(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    answer = robode("train")
    (cfg,) = jobs.configs
    assert (cfg.model.name, cfg.depth, cfg.seed, cfg.data.name) == ("chnode", 8, 0, "mnist5k")
    assert (cfg.integrator.name, cfg.step, cfg.horizon, cfg.repeats) == ("etd", "auto", None, 10)
    assert cfg.experiment == "default"
    assert answer.code == 0
    assert answer.err == ""
    assert list(folder.iterdir()) == []  # the stand-in wrote nothing, and Hydra must not either


def test_model_brings_its_integrator_and_the_command_line_wins(robode: Callable[..., Answer], jobs: Jobs) -> None:
    robode("train", "model=hdnn")
    robode("train", "model=hdnn", "integrator=symplectic_euler")
    assert [cfg.integrator.name for cfg in jobs.configs] == ["euler", "symplectic_euler"]


def test_several_suites(robode: Callable[..., Answer], jobs: Jobs) -> None:
    robode("train", "suite=[noise,clean]")
    assert set(jobs.configs[0].suite) == {"clean", "gaussian", "salt_and_pepper"}


def test_a_job_sees_its_own_command_line_and_no_hydra(robode: Callable[..., Answer], jobs: Jobs) -> None:
    initialised: list[bool] = []
    jobs.effect = lambda cfg: initialised.append(HydraConfig.initialized())
    before = list(sys.argv)
    robode("train", "-m", "depth=2,4", "model=hdnn")
    assert [argv[1:] for argv in jobs.argv] == [
        ["train", "depth=2", "model=hdnn"],
        ["train", "depth=4", "model=hdnn"],
    ]
    assert initialised == [False, False]
    assert sys.argv == before


def test_sweep_over_noise_levels_leaves_one_record(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    answer = robode("train", "-m", "model=chnode", "suite.gaussian.var=0.05,0.2")
    assert [cfg.suite["gaussian"].arguments["var"] for cfg in jobs.configs] == [0.05, 0.2]
    assert "sweep: 2 jobs, 0 reused, 0 failed" in answer.out
    assert answer.code == 0
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    assert files == ["multirun.yaml"]


def test_a_failing_job_does_not_stop_the_others(robode: Callable[..., Answer], jobs: Jobs) -> None:
    def fail(cfg: TrainConfig) -> None:
        if cfg.depth == 2:
            raise JobFailed("NaN loss\nat step 3")

    jobs.effect = fail
    answer = robode("train", "-m", "depth=1,2,3")
    assert [cfg.depth for cfg in jobs.configs] == [1, 2, 3]
    assert "sweep: 3 jobs, 0 reused, 1 failed" in answer.out
    assert answer.line == "job 1 (depth=2): NaN loss at step 3"
    assert answer.code == 1


@pytest.mark.slow
def test_fail_fast_runs_nothing_after_a_failure(robode: Callable[..., Answer], jobs: Jobs) -> None:
    def fail(cfg: TrainConfig) -> None:
        if cfg.depth == 2:
            raise JobFailed("NaN loss")

    jobs.effect = fail
    answer = robode("train", "-m", "depth=1,2,3,4", "fail_fast=true")
    assert [cfg.depth for cfg in jobs.configs] == [1, 2]
    assert answer.code == 1 and answer.err.splitlines()[0].endswith("): NaN loss")
    assert [line.split(" (")[0] for line in answer.err.splitlines()[1:]] == ["robode: job 2", "robode: job 3"]
    assert answer.err.count("not run, because a job before it failed") == 2


def test_a_job_that_another_process_has_is_done_at_the_end(robode: Callable[..., Answer], jobs: Jobs) -> None:
    tried: list[int] = []

    def busy_at_first(cfg: TrainConfig) -> None:
        tried.append(cfg.depth)
        if cfg.depth == 1 and tried.count(1) == 1:
            raise Busy("run 1 is being trained by another process")

    jobs.effect = busy_at_first
    answer = robode("train", "-m", "depth=1,2")
    assert tried == [1, 2, 1]
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BadInput("late"), 2, "late"),
        (JobFailed("NaN"), 1, "NaN"),
        (
            OSError(28, "No space left on device", "/full/disk"),
            1,
            "cannot use '/full/disk': No space left on device",
        ),
        (PermissionError(13, "Permission denied"), 1, "Permission denied"),
        (
            ZeroDivisionError("oops"),
            1,
            "unexpected ZeroDivisionError: oops (ROBODE_DEBUG=1 shows the traceback)",
        ),
    ],
)
def test_exceptions_become_one_line(
    error: Exception, code: int, line: str, robode: Callable[..., Answer], jobs: Jobs
) -> None:
    def fail(cfg: TrainConfig) -> None:
        raise error

    jobs.effect = fail
    answer = robode("train")
    assert (answer.code, answer.line) == (code, line)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
@pytest.mark.parametrize("lightning", [False, True], ids=["plain", "as Lightning ends it"])
def test_signals(number: signal.Signals, code: int, lightning: bool, robode: Callable[..., Answer], jobs: Jobs) -> None:
    def interrupt(cfg: TrainConfig) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if lightning:
                sys.exit(1)
            raise

    jobs.effect = interrupt
    before = signal.getsignal(signal.SIGTERM)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup
    answer = robode("train", "-m", "depth=1,2")
    signal.signal(signal.SIGHUP, hung_up)
    assert answer.code == code
    assert len(jobs.configs) == 1
    assert answer.line == {130: "interrupted", 143: "terminated", 129: "hung up", 138: "preempted"}[code]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_that_is_closed_does_not_end_what_ignores_it(robode: Callable[..., Answer], jobs: Jobs) -> None:
    """nohup robode train …"""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        jobs.effect = lambda cfg: os.kill(os.getpid(), signal.SIGHUP)
        assert robode("train").code == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


EARLY = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "robode.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(10**6))

sys.meta_path.insert(0, Finder())
from robode.__main__ import main
main()
"""


def test_ctrl_c_before_anything_is_imported_leaves_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY, "list"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_wish_to_exit_is_respected(robode: Callable[..., Answer], jobs: Jobs) -> None:
    def leave(cfg: TrainConfig) -> None:
        sys.exit(5)

    jobs.effect = leave
    with pytest.raises(SystemExit):
        robode("train")


def test_evaluate_reaches_its_verb(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    run = folder / "outputs" / "default" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(robode("train", "--cfg").out), resolve=True))
    assert robode("evaluate", "-m", "run=mine", "suite.gaussian.var=0.1,0.3").code == 0
    assert [(cfg.run, cfg.suite["gaussian"].arguments["var"]) for cfg in jobs.configs] == [("mine", 0.1), ("mine", 0.3)]


def test_cfg_prints_and_starts_nothing(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    answer = robode("train", "--cfg", "depth=3")
    assert "depth: 3\n" in answer.out
    assert "hydra" not in answer.out
    assert answer.code == 0
    assert jobs.configs == []
    assert list(folder.iterdir()) == []
