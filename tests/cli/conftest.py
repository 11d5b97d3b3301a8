"""The command line in this process, from an empty folder, with a stand-in where training would begin."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_line import Answer, Jobs
from omegaconf import DictConfig

from robode.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ROBODE_CONFIG_PATH", "ROBODE_DATA", "ROBODE_DEBUG", "ROBODE_TRUST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    seen = Jobs()

    def stand_in(cfg: DictConfig, words: Sequence[str] = (), wait: bool = True) -> dict[str, Any]:
        seen.configs.append(cfg)
        seen.argv.append(list(sys.argv))
        seen.effect(cfg)
        return {}

    for module, function in (("train", "run_training"), ("evaluate", "run_evaluation")):
        fake = ModuleType(f"robode.verbs.{module}")
        setattr(fake, function, stand_in)
        monkeypatch.setitem(sys.modules, f"robode.verbs.{module}", fake)
    monkeypatch.setattr("robode.training.forecast.queue", lambda configs: None)
    return seen


@pytest.fixture
def robode(folder: Path, jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def call(*words: str) -> Answer:
        code = main(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call
