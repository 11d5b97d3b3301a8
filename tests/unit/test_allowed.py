"""The little language in which a YAML says what its keys may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from own_files import write_arrays

from robode.config.allowed import DESCRIPTION, check_node, check_value
from robode.config.config import DataConfig
from robode.config.instantiate import to_plain
from robode.config.parse import parse
from robode.config.validate import check_data
from robode.errors import BadInput

CONF = Path(__file__).parents[2] / "conf"
NODES = [path for group in ("model", "integrator", "encoder", "head") for path in (CONF / group).glob("*.yaml")]


@pytest.mark.parametrize(("value", "spec"), [
    ("relu", "tanh | relu"), (None, "null | number > 0"), (0.5, "null | number > 0"), (True, "true | false"),
    (4, "even integer >= 2"), (3, "integer >= 1"), (0, "number >= 0"), (0.5, "number in (0, 1)"),
    ([0, 1.5], "[low, high]"), (__file__, "a file ending in .npz or .py"),
    ([], "list of integer >= 1"), ([2, 3], "list of integer >= 1"), ("auto", "auto | integer >= 1"),
    ({"any": 1}, "anything"), (__file__, "a file"), (-7, "integer"), (4, "2 | 4"), (0.5, "0.5"),
    (1, "number in (0, 1]"),
    (0, "integer in [0, 3)"),
])  # fmt: skip
def test_values_that_fit(value: object, spec: str) -> None:
    check_value("model.key", value, spec)


@pytest.mark.parametrize(("value", "spec", "says"), [
    ("gelu", "tanh | relu", "model.key=gelu: choose one of: tanh, relu"),
    (1, "true | false", "model.key=1: choose one of: true, false"),
    (True, "integer >= 1", "model.key=true: expected integer >= 1"),
    (0, "number > 0", "model.key=0: expected number > 0"), (float("inf"), "number > 0", "expected number > 0"),
    (3, "auto | even integer >= 2", "model.key=3: expected auto or even integer >= 2"),
    (2.0, "integer >= 1", "expected integer"), (1.0, "number in (0, 1)", "expected number in"),
    ([0], "list of integer >= 1", "expected list of"), ("nowhere", "a file", "model.key=nowhere: expected a file"),
    ([1, 0], "auto | [low, high]", "model.key=[1, 0]: expected auto or [low, high]"), ([0], "[low, high]", "key=[0]"),
    (__file__, "a file ending in .npz", "expected a file ending in .npz"), (1e300, "number > 0", "key=1e+300: "),
    ([0, -1e300], "levels", "model.key=-1e+300: expected a number of at most 3.4e+38, the largest of float32"),
    (1, "number in [0, 1)", "expected number in [0, 1)"), (3, "2 | 4", "choose one of: 2, 4"), ("a", "2", "key=a"),
    ("auto", "integer >= 1", "model.key=auto: expected"), (None, "tanh", "model.key=null"),
])  # fmt: skip
def test_values_that_do_not(value: object, spec: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        check_value("model.key", value, spec)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_spec_may_depend_on_another_key() -> None:
    allowed = {"J": "canonical | j2", "width": {"J=canonical": "even integer >= 2", "else": "integer >= 2"}}
    check_node("model", {"name": "m", "J": "j2", "width": 3, "allowed": allowed})
    with pytest.raises(BadInput, match="model.width=3: expected even integer >= 2"):
        check_node("model", {"name": "m", "J": "canonical", "width": 3, "allowed": allowed})
    allowed = {"file": "text", "label": {"file=*.npz": "null", "else": "text"}}
    check_node("model", {"name": "m", "file": "a.csv", "label": "y", "allowed": allowed})
    with pytest.raises(BadInput, match="^model.label=y: choose one of: null with model.file=a.npz$"):
        check_node("model", {"name": "m", "file": "a.npz", "label": "y", "allowed": allowed})


def test_a_node_that_says_what_is_allowed_is_closed() -> None:
    node = {"name": "m", "widht": 3, "allowed": {"width": "integer >= 1"}}
    with pytest.raises(BadInput, match="^model.widht: model=m has no such key; did you mean model.width\\?$"):
        check_node("model", node)
    check_node("model", {"name": "m", "widht": 3})  # a package of the user's need not say anything


def whole(path: Path) -> dict[str, object]:
    """What a file says, over what the files say that it begins with."""
    node = yaml.safe_load(path.read_text())
    bases = [each for each in node.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    found: dict[str, object] = {}
    for base in bases:
        found |= whole(path.with_stem(base))
    return found | node


@pytest.mark.parametrize("path", NODES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_yaml_of_robode_says_what_its_keys_may_be(path: Path) -> None:
    node = whole(path)
    keys = set(node) - {*DESCRIPTION, "defaults"}
    assert set(node["allowed"]) >= keys
    check_node(path.parent.name, {key: value for key, value in node.items() if key != "defaults"})
    assert set(node) <= {*DESCRIPTION, "defaults", *node["allowed"]}


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_set_of_robode_says_what_the_keys_of_its_source_may_be(path: Path, tmp_path: Path) -> None:
    node = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"}
    assert set(node["allowed"]) >= set(node["source"]) - {"_target_"}
    places = {"a file ending in .npz or .csv": write_arrays(tmp_path / "x.npz"), "a folder": tmp_path}
    given = {key: str(places[spec]) for key, spec in node["allowed"].items() if str(spec) in places}
    check_data(parse(DataConfig, to_plain(OmegaConf.create({"data": {**node, "root": "data", **given}}))["data"]))


@pytest.mark.parametrize(("allowed", "says"), [
    (["width"], "model/m.yaml: allowed: expected a line for each key, got ['width']"), ("width", "expected a line for"),
    (None, "expected a line for each key, got null"),
    ({"width": "intger >= 1"}, "model/m.yaml: allowed.width: 'intger >= 1' cannot be read; expected words, numbers, "),
    ({"width": "integer => 1"}, "'integer => 1' cannot be read"), ({"width": "integer >= one"}, "cannot be read"),
    ({"width": "number in (0; 1)"}, "cannot be read"), ({"width": "number in (0, 1, 2)"}, "cannot be read"),
    ({"width": "number in 0, 1"}, "cannot be read"), ({"width": "list of lists of x"}, "cannot be read"),
    ({"width": ["tanh", "relu"]}, "allowed.width: ['tanh', 'relu'] cannot be read"), ({"width": ""}, "cannot be read"),
    ({"width": "a | | b"}, "cannot be read"), ({"width": {"J": "a"}}, "allowed.width: the condition 'J' is none"),
    ({"width": {"J=1": "a"}}, "allowed.width: the condition 'J=1' is none; expected KEY=VALUE of this node, or else"),
    ({"width": {"else": "integer > x"}}, "allowed.width.else: 'integer > x' cannot be read"),
])  # fmt: skip
def test_what_cannot_be_read_is_named_by_file_and_key(allowed: object, says: str) -> None:
    """Also where the key that it is about has a value that would do."""
    with pytest.raises(BadInput) as error:
        check_node("model", {"name": "m", "allowed": allowed})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_node_without_keys_says_so() -> None:
    with pytest.raises(BadInput, match="^head.typo: head=linear has no such key; it has no keys of its own$"):
        check_node("head", {"name": "linear", "typo": 1, "allowed": {}})
