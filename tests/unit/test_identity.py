"""Which two trainings are the same one."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import composed

from robode.config.compose import Request, compose_trainings
from robode.config.validate import check_data
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.runs.identity import config_hash, differences, run_id, training_config
from robode.runs.run import Run, create

CONFIG = {
    "model": {"name": "chnode", "width": 8}, "depth": 8, "seed": 3, "lr": 0.1, "run": None, "resume": None,
    "force": False, "code": "same", "fail_fast": False, "logger": None, "experiment": "default", "suite": {"clean": {}},
    "protocol": {"name": "data_space"}, "repeats": 10, "trainer": {"name": "cpu", "threads": None},
    "data": {"name": "mnist5k", "root": "data", "source": {"root": "data"}},
}  # fmt: skip
VOLATILE = {
    "run": "x", "resume": "y", "force": True, "code": "any", "fail_fast": True, "logger": {"csv": {}},
    "experiment": "mine",
    "suite": {"noise": {"var": 0.1}}, "protocol": {"name": "other"}, "repeats": 1,
    "trainer": {"name": "cpu", "threads": 2}, "data": {"name": "mnist5k", "root": "b", "source": {"root": "b"}},
}  # fmt: skip


def compose_one(*overrides: str):
    (config,) = compose_trainings(Request("train", overrides))
    return config


def test_name_says_model_depth_seed_and_configuration():
    name = run_id(CONFIG, "0123")
    assert name.startswith("chnode-N8-s3-") and len(name) == len("chnode-N8-s3-") + 8
    assert name != run_id(CONFIG, "4567"), "other data, another run"


@pytest.mark.parametrize("key", VOLATILE)
def test_what_cannot_change_the_weights_does_not_change_the_name(key):
    changed = {**CONFIG, key: VOLATILE[key]}
    assert changed != CONFIG
    assert config_hash(changed) == config_hash(CONFIG) and run_id(changed, "") == run_id(CONFIG, "")
    assert differences(CONFIG, changed) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("depth", 4), ("seed", 0), ("lr", 0.2), ("trainer", {"name": "gpu"}), ("data", {"name": "mnist"})],
)
def test_what_can_change_them_does(key, value):
    assert run_id({**CONFIG, key: value}, "") != run_id(CONFIG, "")


def test_hashing_does_not_change_the_configuration():
    before = repr(CONFIG)
    training_config(CONFIG)
    assert repr(CONFIG) == before


def test_differences_name_the_key_and_both_values():
    other = {**CONFIG, "model": {"name": "chnode", "width": 4}, "epochs": 3}
    assert differences(CONFIG, other) == [("model.width", 8, 4), ("epochs", None, 3)]


@pytest.mark.parametrize("key", ["J_file", "weights_file"])
def test_files_of_the_model_count_by_their_content(key, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = ({**CONFIG, "model": {"name": "chnode", key: str(tmp_path / x)}} for x in "abc")
    assert config_hash(a) == config_hash(b) != config_hash(c)


def test_the_run_keeps_a_copy_of_every_file_of_its_model(tmp_path):
    files = {"J_file": "one.npy", "spectrum_file": "two.txt"}
    for name in files.values():
        (tmp_path / name).write_text(name)
    config = composed()
    paths = {key: str(tmp_path / name) for key, name in files.items()}
    model = replace(config.model, arguments={**config.model.arguments, **paths})
    run = create(Run(tmp_path / "run"), replace(config, model=model))
    for name in files.values():
        (tmp_path / name).unlink()
    kept = run.config().model.arguments
    assert Path(kept["J_file"]).read_text() == "one.npy" and Path(kept["spectrum_file"]).read_text() == "two.txt"
    assert kept["J_file"] == str(run.folder / "J.npy")


def test_constants_to_normalise_by_count_only_where_they_are_not_the_customary_ones():
    usual = compose_one("data=fashion_mnist").plain()
    source = usual["data"]["source"]
    assert usual["data"]["mean"] is None and source["std"] is None
    older = usual | {"data": {key: each for key, each in usual["data"].items() if key not in ("mean", "std")}}
    older["data"]["source"] = {key: each for key, each in source.items() if key not in ("mean", "std")}
    assert run_id(older, "d") == run_id(usual, "d")
    halves = compose_one("data=fashion_mnist", "data.mean=[0.5]", "data.std=[0.5]")
    assert run_id(halves.plain(), "d") != run_id(usual, "d")
    info = halves.data.source.build().info
    assert (info.mean, info.std) == ((0.5,), (0.5,)) and info.bounds == (0.0, 1.0)


@pytest.mark.parametrize(("override", "says"), [
    ("data.mean=0.5", "data.mean=0.5: expected null or list of number"),
    ("data.std=[0]", "data.std=[0]: expected null or list of number > 0"),
    ("data.mean=[0.5,0.5]", "data=fashion_mnist: mean and std have 2 and 1 numbers, expected 1: one a channel"),
])  # fmt: skip
def test_constants_that_no_image_can_be_normalised_by(override, says):
    with pytest.raises(BadInput) as error:
        config = compose_one("data=fashion_mnist", override)
        check_data(config.data)
        DataModule.of(config.data, 10)
    assert str(error.value) == says


def test_another_encoder_or_head_is_another_run_and_the_usual_ones_are_those_of_runs_without_a_choice():
    usual = {"model": {"name": "chnode"}, "depth": 2, "seed": 0}
    named = usual | {"encoder": {"name": "auto", "bounded": False, "allowed": {}}, "head": {"name": "linear"}}
    assert run_id(named, "d") == run_id(usual, "d")
    bounded, mine = {"name": "auto", "bounded": True}, {"name": "linear", "_target_": "mine.Head"}
    for other in ({"encoder": bounded}, {"head": mine}):
        assert run_id(named | other, "d") != run_id(usual, "d")


def test_what_came_later_changes_no_name_of_an_earlier_run():
    """An integrator that models take too, and the choice of how gradients are worked out."""
    earlier = {"model": {"name": "node", "integrators": ["rk4", "euler"]}, "integrator": {"name": "rk4"}}
    later = {
        "model": {"name": "node", "integrators": ["rk4", "rk38", "euler"]},
        "integrator": {"name": "rk4", "gradient": "backprop"},
    }
    numbers = {"depth": 2, "seed": 0}
    assert run_id(later | numbers, "d") == run_id(earlier | numbers, "d")
    for other in ({"name": "rk38"}, {"name": "rk4", "gradient": "adjoint"}):
        assert run_id(earlier | numbers | {"integrator": other}, "d") != run_id(earlier | numbers, "d")
