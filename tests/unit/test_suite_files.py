"""The files of conf/suite and conf/protocol: described, buildable, mergeable."""

from pathlib import Path

import hydra
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from robode.corruptions.perturbation import Clean
from robode.data.info import DatasetInfo
from robode.tasks.classification import Classification

CONF = Path(__file__).parents[2] / "conf"
IMAGES = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))


def composed(*overrides: str):
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose(overrides=list(overrides))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "suite").glob("*.yaml")))
def test_every_suite_yaml_describes_itself_and_has_the_clean_row(name):
    assert (CONF / "suite" / f"{name}.yaml").read_text().startswith("# ")
    suite = hydra.utils.instantiate(composed(f"+suite={name}").suite)
    assert all(key == entry.name for key, entry in suite.items())  # what they do: tests/contracts
    assert isinstance(suite["clean"], Clean)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "protocol").glob("*.yaml")))
def test_every_protocol_yaml_describes_itself_and_builds(name):
    assert (CONF / "protocol" / f"{name}.yaml").read_text().startswith("# ")
    protocol = hydra.utils.instantiate(composed(f"+protocol={name}").protocol)
    assert protocol.name == name and protocol.bounds(IMAGES) is not None


def test_suites_merge():
    merged = OmegaConf.to_container(composed("+suite=[noise,clean]").suite)
    assert merged == OmegaConf.to_container(composed("+suite=noise").suite)
    with_level = composed("+suite=[noise,clean]", "suite.gaussian.var=0.3")
    assert hydra.utils.instantiate(with_level.suite.gaussian).severities == (0.3,)
