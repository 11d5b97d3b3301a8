"""Rows and configurations of earlier versions, in the words of today."""

import pandas as pd
import yaml
from omegaconf import OmegaConf

from robode.config.instantiate import targets
from robode.config.paths import conf_dir
from robode.runs.earlier import GROUPS, _homes, in_todays_words
from robode.runs.results import renamed


def test_rows_have_the_names_of_today():
    old = pd.DataFrame(
        {
            "protocol": ["sound", "chnode_2022", "sound"],
            "perturbation": ["standard_l2", "gaussian", "minimal_linf"],
            "column": ["standard .1", "Gauss .05", "sound: s&p .2"],
        }
    )
    new = renamed(old)
    assert list(new["protocol"]) == ["data_space", "chnode_2022", "data_space"]
    assert list(new["perturbation"]) == ["ensemble_l2", "gaussian", "fmn_linf"]
    assert list(new["column"]) == ["robode ensemble .1", "Gauss .05", "data space: s&p .2"]
    assert list(old["protocol"]) == ["sound", "chnode_2022", "sound"] and renamed(new).equals(new)


def test_a_configuration_has_the_classes_and_keys_of_today():
    config = OmegaConf.create(
        {
            "protocol": {"_target_": "robode.robustness.protocols.Sound"},
            "suite": {
                "minimal_l2": {"_target_": "robode.robustness.attacks.perturbations.MinimalNorm", "norm": "l2"},
                "autoattack_l2": {"_target_": "robode.attacks.perturbations.AutoAttack", "spare_certified": True},
                "eps_r": {"_target_": "robode.quantities.quantity.EpsR"},
            },
        }
    )
    config = in_todays_words(OmegaConf.to_container(config))
    assert config["protocol"]["_target_"] == "robode.corruptions.protocols.DataSpace"
    assert config["suite"]["minimal_l2"]["_target_"] == "robode.attacks.fmn.FMN"
    assert config["suite"]["autoattack_l2"] == {
        "_target_": "robode.attacks.ensemble.AutoAttack",
        "skip_certified": True,
    }
    assert config["suite"]["eps_r"]["_target_"] == "robode.quantities.plane.EpsR"


def test_a_class_is_found_by_its_name_in_every_file_without_reading_it_as_yaml():
    files = [file for group in GROUPS for file in (conf_dir() / group).rglob("*.yaml")]
    named = {each for file in files for each in targets(yaml.safe_load(file.read_text())) if each.startswith("robode.")}
    assert sorted(_homes().values()) == sorted(named) and all(
        target.endswith(f".{n}") for n, target in _homes().items()
    )
