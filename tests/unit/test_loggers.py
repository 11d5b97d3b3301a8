"""conf/logger: every file names a logger that there is, and says what docs/trackers.md says of it."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from lightning.pytorch.loggers import Logger
from small_runs import composed

from robode.config.listing import entries
from robode.config.paths import conf_dir

NAMES = sorted(entries("logger"))
PAGE = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_class_is_a_logger_and_takes_the_keys(name: str) -> None:
    (part,) = composed(f"logger={name}").logger.values()
    module, _, kind = part.target.rpartition(".")
    found = getattr(import_module(module), kind)
    assert issubclass(found, Logger)
    inspect.signature(found).bind(**part.arguments, save_dir="folder")


def test_the_page_names_every_logger_with_its_extra() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for name in set(NAMES) - {"csv"}:
        assert f"| `{name}` | `pip install 'robode[{name}]'` |" in PAGE
        assert f"\n{name} = [" in project
        assert f"robode[{name}]" in (conf_dir() / "logger" / f"{name}.yaml").read_text(encoding="utf-8")


def test_names_of_a_trackers_runs_tell_them_apart() -> None:
    (part,) = composed("logger=mlflow", "depth=3", "seed=5", "experiment=smoke").logger.values()
    assert part.arguments["run_name"] == "chnode-N3-s5" and part.arguments["experiment_name"] == "smoke"
