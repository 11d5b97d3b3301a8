"""What a configuration may and may not create."""

import sys

import pytest
import torch
from omegaconf import OmegaConf

from robode.config.instantiate import build, check_keys, check_targets
from robode.errors import BadInput

HOSTILE = [
    "torch.utils.collect_env.run",  # runs a shell
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "eval",
    "pathlib.Path",
    "torch.load",
    "torch.nn.init.zeros_",  # a function in an allowed package
    "torch.nn.functional.relu",
    "torch.nn",  # a module
    "lightning.pytorch.Trainer",  # a class, but none that a configuration describes
    "robode.config.instantiate.build",
    "robode.config.instantiate.os.system",  # a foreign function behind an allowed name
    "robode.runs.run.subprocess.Popen",  # a foreign class behind an allowed name
    "torch.nn.Linear.forward",
    "torch.nn.Linear.__class__",
    "torch.nn.Missing",
    "torch.nn.Linear; import os",
    "",
    7,
    None,
]


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_target_is_refused_in_one_line(target, tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(BadInput) as refusal:
        build({"_target_": target, "_args_": [f"touch {marker}"]})
    assert "\n" not in str(refusal.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", "command": "true"}]},
        {
            "_target_": "torch.nn.Linear",
            "in_features": {"deep": [[{"_target_": "os.system"}]]},
            "out_features": 1,
        },
        {"_target_": "${name}", "name": "os.system"},
        {"_target_": "torch.nn.Linear", "in_features": {"_target_": "${oc.env:ROBODE_TEST_TARGET}"}},
    ],
    ids=["args", "nested list", "interpolation", "environment"],
)
def test_hidden_target_is_refused(node, monkeypatch):
    monkeypatch.setenv("ROBODE_TEST_TARGET", "os.system")
    with pytest.raises(BadInput, match=r"os\.system"):
        build(OmegaConf.create(node))
    with pytest.raises(BadInput, match=r"os\.system"):
        check_targets(OmegaConf.create(node))


def test_foreign_hydra_node_is_refused():
    with pytest.raises(BadInput, match="hydra"):
        check_targets({"hydra": {"callbacks": {"a": {"command": "true"}}}})


def test_check_targets_imports_nothing(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    check_targets({"a": {"_target_": "torch.nn.Linear"}, "b": [{"_target_": "robode.data.Anything"}]})


def test_builds_nested_classes_with_plain_containers():
    config = OmegaConf.create(
        {"rate": 0.25, "optimizer": {"_target_": "torch.optim.Adam", "lr": "${rate}", "betas": [0.5, 0.9]}}
    )
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = build(config.optimizer, params=[parameter])
    assert type(optimiser) is torch.optim.Adam
    assert optimiser.param_groups[0]["lr"] == 0.25
    assert type(optimiser.param_groups[0]["betas"]) in (list, tuple)
    assert optimiser.param_groups[0]["params"][0] is parameter
    stack = build({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.ReLU"}]})
    assert isinstance(stack[0], torch.nn.ReLU)


@pytest.mark.parametrize("options", [{"lrr": 1.0}, {"lr": -1.0}])
def test_refused_arguments_are_one_line(options):
    with pytest.raises(BadInput, match="torch.optim.SGD") as refusal:
        build({"_target_": "torch.optim.SGD", **options}, params=[torch.nn.Parameter(torch.zeros(1))])
    assert "\n" not in str(refusal.value)


@pytest.fixture
def user_package(tmp_path, monkeypatch):
    """A package of the user's with a plain class and a function."""
    (tmp_path / "my_noise.py").write_text("class Blur:\n    def __init__(self, k): self.k = k\ndef run(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_noise"
    sys.modules.pop("my_noise", None)


def test_user_package_needs_trust(user_package, monkeypatch):
    node = {"_target_": "my_noise.Blur", "k": 3}
    with pytest.raises(BadInput, match="ROBODE_TRUST=my_noise"):
        build(node)
    assert user_package not in sys.modules, "an untrusted package must not even be imported"
    monkeypatch.setenv("ROBODE_TRUST", "other,my_noise")
    assert build(node).k == 3
    with pytest.raises(BadInput, match="a class"):
        build({"_target_": "my_noise.run"})


def test_a_trusted_package_that_is_not_there(monkeypatch):
    monkeypatch.setenv("ROBODE_TRUST", "no_such_package")
    with pytest.raises(BadInput, match="package 'no_such_package' cannot be imported; install it or set PYTHONPATH"):
        build({"_target_": "no_such_package.inner.Blur"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import no_such_package\n", "needs the package 'no_such_package', which is not installed"),
        ("import robode.nothing\n", "needs the package 'robode.nothing', which is not installed"),
        ("1 / 0\n", "'broken' cannot be imported (ZeroDivisionError: division by zero)"),
        ("def (:\n", "'broken' cannot be imported (SyntaxError: "),
        ("", "no such class"),
    ],
)
def test_a_trusted_package_that_is_broken(text, expected, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROBODE_TRUST", "broken")
    try:
        with pytest.raises(BadInput) as refusal:
            build({"_target_": "broken.Blur"})
    finally:
        sys.modules.pop("broken", None)
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


def test_resolving_builds_nothing_and_looks_at_every_target(user_package, monkeypatch):
    monkeypatch.setenv("ROBODE_TRUST", user_package)
    check_keys({"a": {"_target_": "my_noise.Blur"}})  # without the k that it needs
    with pytest.raises(BadInput, match="no such class"):
        check_keys({"a": None, "b": {"_target_": "my_noise.Blur", "k": [{"_target_": "my_noise.Missing"}]}})
    with pytest.raises(BadInput, match=r"unknown key 'b.kk' of my_noise.Blur: did you mean 'k'\?"):
        check_keys({"b": {"_target_": "my_noise.Blur", "kk": 3}})
