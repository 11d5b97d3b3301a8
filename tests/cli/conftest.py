"""The command line in this process, from an empty folder, with a stand-in where training would begin."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from command_line import Answer, Jobs, calling

from robode.config.jobs import Job, Result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ROBODE_CONFIG_PATH", "ROBODE_DATA", "ROBODE_DEBUG", "ROBODE_TRUST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    seen = Jobs()

    def stand_in(job: Job, wait: bool = True) -> Result:
        seen.configs.append(job.config)
        seen.argv.append(list(sys.argv))
        seen.effect(job.config)
        return Result(run=Path("nowhere"))

    fake = ModuleType("robode.api")
    fake.work = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robode.api", fake)
    monkeypatch.setattr("robode.verbs.composed.queue", lambda configs: None)
    return seen


@pytest.fixture
def robode(folder: Path, jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command line; bad input leaves the folder as it was, whatever a test looks at besides."""
    call = calling(capsys)

    def watched(*words: str) -> Answer:
        before = set(folder.rglob("*"))
        answer = call(*words)
        assert answer.code != 2 or set(folder.rglob("*")) == before
        return answer

    return watched
