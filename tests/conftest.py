"""For all tests; also makes the helper modules of this folder importable from the others."""

import copy
import gc
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource

from robode.config.paths import conf_dir
from robode.runs.run import Run

torch.set_num_threads(1)  # small matrices: more threads only cost time, and results must not depend on them


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell that starts the tests in the background has told them to ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection_finish() -> None:
    """Half a million objects of the imported libraries live to the end; searching them for garbage costs a tenth."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def yaml_is_parsed_once() -> Iterator[None]:
    """Hydra parses twenty files of its own and of conf/ for each of 700 compositions; no test changes these."""
    Plugins.instance()  # fills the registry
    with pytest.MonkeyPatch.context() as patch:
        for scheme, place in (("file", str(conf_dir())), ("pkg", "hydra.conf")):
            source = SourcesRegistry.instance().resolve(scheme)
            patch.setattr(source, "load_config", remembering(source.load_config, place))
        yield


def remembering(parse: Callable[[ConfigSource, str], ConfigResult], place: str) -> Callable[..., ConfigResult]:
    """`parse` for one place, each file once; whoever asks gets a copy of his own."""
    known: dict[str, ConfigResult] = {}

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        if source.path != place:
            return parse(source, config_path)
        if config_path not in known:
            known[config_path] = parse(source, config_path)
        return copy.deepcopy(known[config_path])

    return load_config


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `train("epochs=1")` was run."""
    from small_runs import train  # here, because it takes seconds

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        train("epochs=1")
    return place


@pytest.fixture
def run_of_one_epoch(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What `train("epochs=1")` leaves in the current folder, tmp_path; a copy, to be changed at will."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    (config,) = Path("outputs").glob("*/*/config.yaml")
    return Run(config.parent)
