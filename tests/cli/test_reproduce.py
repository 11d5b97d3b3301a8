"""`robode reproduce` and `robode report`: which jobs, in which order, and what a night leaves behind."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from command_line import Answer
from own_paper import ITEM, write_own_paper

from robode.api.evaluation import Measured
from robode.cli.completion import candidates
from robode.cli.main import main
from robode.config.compose import Request, compose_trainings
from robode.config.config import EvaluateConfig
from robode.config.jobs import Job as Composed
from robode.config.jobs import Outcome, Result, failure
from robode.errors import Busy, DataMissing, JobFailed
from robode.evaluation.target import EvaluationTarget
from robode.files import read_json, write_json
from robode.papers.collect import Shelf
from robode.papers.plan import PlannedRun, evaluations, plan, preview
from robode.papers.selection import select
from robode.report.cells import Table
from robode.report.layout import Column
from robode.report.paper_page import Report
from robode.runs.code import CODE, RECORD, training_code
from robode.runs.run import Run, create
from robode.training.plan import located
from robode.verbs.reproduce import Reproduction, with_data


@pytest.fixture
def own_paper(folder: Path) -> Path:
    return write_own_paper(folder)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reproduction]:
    """The documented item with two seeds, composed once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(write_own_paper(tmp_path_factory.mktemp("own_paper")))
        selection = select(ITEM, ["seeds=2"])
        yield Reproduction(selection, plan(selection), evaluations(selection))


class Night:
    """A reproduction whose trainings and measurements are stand-ins; `done` says in which order they were called.

    effect: called with each job before its training; what it raises is how the job ends.
    """

    def __init__(self, work: Reproduction, patch: pytest.MonkeyPatch) -> None:
        self.work = replace(work, failures={})
        self.done: list[str] = []
        self.reports = 0
        self.effect: Callable[[PlannedRun], object] = lambda job: None
        patch.setattr("robode.verbs.reproduce.run_each", self.run_each)
        patch.setattr("robode.verbs.reproduce.publish", self.publish)
        patch.setattr("robode.verbs.reproduce.missing", lambda run, *_: f"measure {run.id}" not in " ".join(self.done))
        patch.setattr("robode.api.evaluation.evaluated", self.evaluated)
        patch.setattr("robode.api.evaluation.report", lambda *_: None)

    def run_each(self, jobs: Sequence[Composed], work: object, after: Any, **given: Any) -> None:
        """Like `jobs.run_each`."""
        assert given == {"config_dirs": (), "fail_fast": False}
        of = {job.overrides: job for job in self.work.jobs}
        for number, each in enumerate(jobs):
            own = [word for word in each.overrides if word.startswith("run=")]
            job = of[tuple(word for word in each.overrides if word not in own)]
            after(number, self.train(job, *own))

    def train(self, job: PlannedRun, name: str = "") -> Outcome:
        try:
            self.effect(job)
        except JobFailed as error:
            return failure(error)
        name = name.removeprefix("run=") or f"{job.cfg.model.name}-{job.seed}"
        run = create(Run(Path("outputs") / job.cfg.experiment / name), job.cfg)
        write_json(run.folder / RECORD, {CODE: training_code(job.plain)})
        run.last.write_text("")
        run.update(status="done", trained=True)
        self.done.append(f"train {run.id}")
        return Outcome(result=Result(run=run.folder))

    def evaluated(self, cfg: EvaluateConfig, console: object, wait: bool = True) -> Measured:
        self.done.append(f"measure {Path(cfg.run).name} {cfg.split} {' '.join(cfg.suite)}")
        return Measured(cast(EvaluationTarget, None), [{}], reused=False)

    def publish(self, *_: object) -> Report:
        self.reports += 1
        return Report(Path("report.html"), Table("Table 2", "", (), (), True, "4 cells: 1 agrees, 3 not run", ()))

    @property
    def trained(self) -> list[str]:
        return [line.removeprefix("train ") for line in self.done if line.startswith("train")]


@pytest.fixture
def night(folder: Path, composed: Reproduction, monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(composed, monkeypatch)


def test_seed_by_seed_and_measured_at_once(night: Night) -> None:
    assert night.work.run() == 0
    assert night.trained == ["chnode-1", "hdnn-1", "chnode-2", "hdnn-2"]
    measured = ["measure chnode-1 train clean", "measure chnode-1 test clean gaussian salt_and_pepper"]
    assert night.done[:4] == ["train chnode-1", *measured, "train hdnn-1"]
    assert night.reports >= 2  # one before anything is there, one at the end


def test_what_is_complete_is_not_done_again(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    night.train(night.work.jobs[0])
    night.done.append("measure chnode-1")
    assert night.work.run() == 0
    assert night.trained[1:] == ["hdnn-1", "chnode-2", "hdnn-2"]
    assert "4 jobs, 1 of them complete" in capsys.readouterr().out
    before = list(night.done)
    assert night.work.run() == 0 and night.done == before


@pytest.mark.slow
def test_a_training_that_was_never_measured_is_measured(night: Night) -> None:
    for job in night.work.jobs:
        night.train(job)
    night.work.run()
    assert sum(line.startswith("measure") for line in night.done) == 8


def test_a_run_of_other_code_does_not_count_and_is_trained_anew_beside_it(
    night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    first = night.work.jobs[0]
    old = night.train(first).result.run
    write_json(old / RECORD, {CODE: "0123456789ab"})
    expected = located(first.cfg, anew=True).id
    assert night.work.run() == 0
    assert night.trained == ["chnode-1", expected, "hdnn-1", "chnode-2", "hdnn-2"]
    assert "† runs of other code that do not count: 1; code=any uses them" in capsys.readouterr().out
    assert read_json(old / RECORD) == {CODE: "0123456789ab"} and Run(old).trained
    before = list(night.done)
    assert night.work.run() == 0 and night.done == before, "the new one is found again"


@pytest.mark.slow
def test_runs_of_other_code_count_where_that_was_asked_for(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in night.work.jobs:
        run = night.train(job).result.run
        write_json(run / RECORD, {CODE: "0123456789ab"})
        night.done.append(f"measure {run.name}")
    before = list(night.done)
    night.work.shelf = Shelf(code="any")
    assert night.work.run() == 0 and night.done == before
    assert "†" not in capsys.readouterr().out


def test_a_failed_job_is_named_and_the_others_go_on(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(job: PlannedRun) -> None:
        if job.seed == 1:
            raise JobFailed("NaN loss at step 3")

    night.effect = fail
    assert night.work.run() == 1
    assert night.trained == ["chnode-2", "hdnn-2"]
    assert capsys.readouterr().err == "robode: N = 4 CH-NODE, seed 1; N = 4 H-DNN, seed 1: NaN loss at step 3\n"


def test_a_failed_measurement_is_named_too(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(cfg: EvaluateConfig, console: object, wait: bool = True) -> Any:
        raise JobFailed("the disk is full")

    monkeypatch.setattr("robode.api.evaluation.evaluated", fail)
    assert night.work.run() == 1
    assert len(night.trained) == 4
    assert capsys.readouterr().err.endswith("N = 4 CH-NODE, seed 2 and 1 more: the disk is full\n")


def test_what_another_process_measures_is_measured_when_everything_is_trained(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night waited there, with jobs left that nobody had."""
    measured = night.evaluated

    def busy_at_first(cfg: EvaluateConfig, console: object, wait: bool = True) -> Measured:
        if not wait:
            night.done.append("put off")
            raise Busy("run is being evaluated by another process")
        return measured(cfg, console)

    monkeypatch.setattr("robode.api.evaluation.evaluated", busy_at_first)
    assert night.work.run() == 0
    kinds = [line.split()[0] for line in night.done]
    assert kinds.index("measure") > max(place for place, kind in enumerate(kinds) if kind == "train")
    assert kinds.count("put") == kinds.count("train") == 4


def test_what_another_process_has_is_left_to_it_for_now(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    """`jobs.run_each` comes back to it; a busy job is neither measured nor a failure."""
    train = night.train
    night.train = lambda job: Outcome(code=2, error="busy", state="busy") if job.seed == 1 else train(job)  # type: ignore[method-assign]
    assert night.work.run() == 0
    assert night.trained == ["chnode-2", "hdnn-2"]
    assert "N = 4 H-DNN, seed 1: another process has it, put off" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_that_fails_costs_no_training(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr("robode.verbs.reproduce.publish", fail)
    assert night.work.run() == 1
    assert len(night.trained) == 4
    assert capsys.readouterr().err.startswith("robode: no report: unexpected ZeroDivisionError")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "expected one PAPER/ITEM, got none; choose one of: chnode_2022/table1"),
        (("table2",), "paper=table2: unknown paper"),
        ((ITEM, "size=smol"), "size=smol: did you mean 'smoke'? choose one of: full, smoke"),
        ((ITEM, "epoch=2"), "unknown key 'epoch': did you mean 'epochs'? (row 'N = 4 CH-NODE' of moons_2026/table2)"),
        ((ITEM, "epochs=1,2"), "several values need -m"),
        ((ITEM, "--dry"), "robode reproduce: unrecognized arguments: --dry"),
    ],
)
def test_bad_input_starts_nothing(
    words: tuple[str, ...], expected: str, own_paper: Path, robode: Callable[..., Answer]
) -> None:
    answer = robode("reproduce", *words)
    assert expected in answer.line and answer.code == 2
    assert [path.name for path in own_paper.iterdir()] == ["conf"]


@pytest.mark.slow
def test_overrides_reach_every_training_and_its_evaluations(own_paper: Path) -> None:
    selection = select(ITEM, ["size=smoke", "lr=0.5", "repeats=4", "rows=h-dnn", "force=true"])
    jobs = plan(selection)
    assert [(job.wanted, job.cfg.lr, job.cfg.epochs, job.cfg.repeats, job.cfg.data.limit_train) for job in jobs] == [
        (False, 0.5, 1, 4, 100), (True, 0.5, 1, 4, 100),
    ]  # fmt: skip
    assert "force=true" in jobs[1].overrides and [cfg.repeats for cfg in evaluations(selection)] == [4, 4]


NOTHING = "no training and no evaluation of moons_2026/table2 measures noise .7, s&p: not run, even when all jobs are"


def test_columns_that_nothing_measures_are_named_by_a_dry_run(own_paper: Path, robode: Callable[..., Answer]) -> None:
    """A severity that no suite has, and a protocol that no evaluation asks for; of the others nothing is said."""
    plain = robode("reproduce", ITEM, "--dry-run", "size=smoke")
    assert plain.code == 0 and "measures" not in plain.out
    paper = own_paper / "conf/paper/moons_2026.yaml"
    more = (
        "noise .7: {perturbation: gaussian, severity: 0.7}\n      s&p: {perturbation: clean, protocol: chnode_2022}\n"
    )
    before = paper.read_text()
    paper.write_text(before.replace("      noise .1:", f"      {more}      ε: {{quantity: eps_r}}\n      noise .1:", 1))
    answer = robode("reproduce", ITEM, "--dry-run", "size=smoke")
    assert answer.code == 0 and answer.out.splitlines()[-1].startswith(NOTHING)


def test_columns_that_nothing_measures_are_named_at_the_end(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    assert night.work.run() == 0
    assert "measures" not in capsys.readouterr().out
    item = night.work.selection.item
    more = {
        "noise .7": Column("noise .7", perturbation="gaussian", severity=0.7),
        "s&p": Column("s&p", perturbation="pepper"),
    }
    selection = replace(night.work.selection, item=replace(item, columns={**item.columns, **more}))
    night.work = replace(night.work, selection=selection)
    assert night.work.run() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(NOTHING)


def test_a_seed_is_a_value_in_every_job_of_a_row(composed: Reproduction, own_paper: Path) -> None:
    """Rows are composed once; composing a seed by its overrides must give the same."""
    job = composed.jobs[-1]
    (cfg,) = compose_trainings(Request("train", job.overrides))
    assert job.cfg == cfg and cfg.seed == 3 and len({each.hash for each in composed.jobs}) == 6


@pytest.mark.slow
def test_the_documented_example_really_runs(
    own_paper: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run, a reproduction that is complete then, and its report from its own tables alone."""
    monkeypatch.setattr(
        "robode.api.evaluation.draw_figures", lambda folder: []
    )  # pages of single runs: tested elsewhere
    monkeypatch.setattr("robode.api.evaluation.write_page", lambda folder: folder / "report.html")
    selection = select(ITEM, ["size=smoke", "trainer.threads=1", "rows=H-DNN"])
    work = Reproduction(selection, plan(selection), evaluations(selection))
    job = work.jobs[1]
    preview(selection, [job], work.asked)
    assert re.search(
        r"N = 4 H-DNN, seed 1: not started, rows missing: all, .+  outputs/moons_2026/table2/hdnn-N4-s1-\w+\n",
        capsys.readouterr().out,
    )
    assert not Path("outputs").exists()
    assert work.run() == 0
    assert work._complete(job)
    report = own_paper / "outputs/reports/moons_2026/table2-smoke"
    table = (report / "table.md").read_text(encoding="utf-8")
    assert "smoke: 100 points, 1 epoch" in table and "3 not run" not in table and r"97.10 \|" in table
    (run,) = Path("outputs/moons_2026/table2").glob("hdnn*")
    results = (run / "results.csv").read_text().splitlines(keepends=True)
    (run / "results.csv").write_text("".join(results[:-1]))
    assert not work._complete(job)
    (run / "config.yaml").unlink()
    assert main(["report", f"from={report}", "to=again"]) == 0
    assert Path("again/table.md").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_lists_help_and_completion_know_papers(own_paper: Path, robode: Callable[..., Answer]) -> None:
    assert re.search(r"moons_2026/table2 +Table 2: accuracy on two moons", robode("list", "papers").out)
    for verb in ("reproduce", "report"):
        out = robode(verb, "--help").out
        assert out.startswith(f"usage: robode {verb}") and ITEM in out and "size=full|smoke" in out
    assert candidates("robode reproduce moo") == [ITEM]
    assert candidates(f"robode reproduce {ITEM} size=s") == ["size=smoke"]
    assert candidates("robode report chnode_2022/table1 variant=") == ["variant=script", "variant=text"]


def test_report_says_what_it_cannot_find(own_paper: Path, robode: Callable[..., Answer]) -> None:
    assert "run=nothing: expected a run folder" in robode("report", "nothing").line
    assert "there are none under outputs/" in robode("report").line
    assert "from=conf: expected the folder of a report" in robode("report", "from=conf").line
    assert "depth=3: makes no sense beside runs" in robode("report", "depth=3").line


def test_rows_whose_data_are_not_there_stay_not_run(
    own_paper: Path, robode: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are trained; the exit code and a line say what is missing. With no row left nothing is written."""
    monkeypatch.setattr("robode.data.validation.reachable", lambda url: False)
    paper = own_paper / "conf" / "paper" / "moons_2026.yaml"
    paper.write_text(paper.read_text().replace("[model=hdnn, depth=4]", f"[data=cifar10, data.root={own_paper}]"))
    jobs = plan(select(ITEM, ["size=smoke"]))
    found, absent = with_data(jobs)
    assert [job.wanted for job in found] == [True, False]
    ((code, line),) = absent
    assert code == 2 and "not run, because data.root=" in line and absent[code, line] == ["N = 4 H-DNN, seed 1"]
    answer = robode("reproduce", ITEM, "size=smoke", "--dry-run")
    assert answer.code == 0 and f"1 more: {line}" in answer.out.replace("\n", " ")
    with pytest.raises(DataMissing):
        with_data([job for job in jobs if not job.cfg.data.name.startswith("double")])
