"""Attacks in conf/suite: every setting can be changed by its key, stored rows are found again, and none is two."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from small_runs import build_each, train

from robode.attacks.attack import Attack
from robode.attacks.pgd import PGD
from robode.corruptions.noise import Clean, ClipOnly, Gaussian
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.suite import Plan, evaluation_digest
from robode.tasks.classification import Classification

CONF = Path(__file__).parents[2] / "conf"
INFO = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))
OTHER = {
    "eps": 0.2, "norm": "l2", "loss": "margin", "steps": 7, "step_size": 0.5, "restarts": 3, "targets": 2, "queries": 5,
    "skip_certified": True, "suite": "mine", "variant": "text",
}  # fmt: skip
SUITES = (
    "attacks_quick",
    "attacks_standard",
    "autoattack",
    "curve_l2",
    "curve_linf",
    "gap",
    "lecture_curve",
    "lyanet_2022",
    "lyanet_ablations",
    "lyanet_autoattack",
    "lyanet_data_space",
    "stable_node_attacks",
    "stable_node_designs",
    "table1_attacks",
    "worst_error",
)


def attacks(suite, *words):
    """Those of conf/suite/<suite>.yaml, as built, with these changes."""
    if suite.endswith("autoattack"):
        pytest.importorskip("pyautoattack")
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        built = build_each(compose(overrides=[f"+suite={suite}", *words]).suite)
    return {key: each for key, each in built.items() if isinstance(each, Attack)}


@pytest.mark.parametrize("suite", SUITES)
def test_every_setting_of_an_attack_is_a_key_that_can_be_changed(suite):
    keys = [(key, name) for key, each in attacks(suite).items() for name in inspect.signature(type(each)).parameters]
    changed = attacks(suite, *(f"suite.{key}.{name}={OTHER[name]}" for key, name in keys))
    for key, name in keys:
        if name == "eps":
            assert changed[key].severities == (0.2,)
        else:
            attribute = "skips_certified" if name == "skip_certified" else name
            assert getattr(changed[key], attribute) == OTHER[name]


def test_an_evaluation_is_that_of_its_settings_wherever_its_class_lives(monkeypatch):
    """Moving a class to another room makes no other evaluation of it; a setting does."""
    (attack,) = attacks("gap").values()
    (other,) = attacks("gap", "suite.ensemble_l2.queries=9").values()
    before = evaluation_digest(attack, DataSpace(), "d")
    assert evaluation_digest(other, DataSpace(), "d") != before
    monkeypatch.setattr(type(attack), "__module__", "robode.elsewhere")
    assert evaluation_digest(attack, DataSpace(), "d") == before
    assert len({before, evaluation_digest(attack, DataSpace(), "e"), evaluation_digest(attack, ChNode2022(), "d")}) == 3


def test_no_suite_with_attacks_is_forgotten_here():
    files = (CONF / "suite").glob("*.yaml")
    assert set(SUITES) == {path.stem for path in files if "_target_: robode.attacks." in path.read_text()}


@pytest.mark.parametrize(
    ("suite", "protocol", "expected"),
    [
        (
            {"a": PGD([0.1, 0.2]), "b": PGD([0.3, 0.2])},
            DataSpace(),
            "suite.a and suite.b: both measure pgd_linf 0.2 with",
        ),
        ({"c": Clean(), "d": Clean()}, DataSpace(), "suite.c and suite.d: both measure clean with the same settings"),
    ],
)
def test_two_entries_that_would_write_the_same_row_are_refused(suite, protocol, expected):
    with pytest.raises(BadInput, match=expected):
        Plan(suite, protocol, INFO, repeats=1).rows()


def test_entries_of_one_name_with_other_settings_or_other_severities_have_rows_of_their_own():
    suite = {
        "few": PGD([0.1, 0.2], steps=40), "many": PGD([0.1, 0.2], steps=100), "larger": PGD(0.3, steps=40),
        "again": PGD(0.1, suite="mine"), "noise": Gaussian(0.1),
    }  # fmt: skip
    rows = [tuple(row.values()) for _, row in Plan(suite, DataSpace(), INFO, repeats=2).rows()]
    assert len(set(rows)) == len(rows) == 8


def test_what_a_suite_asks_for_itself_the_protocol_does_not_add_again():
    suite = {"e": ClipOnly(), "noise": Gaussian(0.1)}
    rows = [row for _, row in Plan(suite, ChNode2022(), INFO, repeats=1).rows()]
    assert [row["perturbation"] for row in rows] == ["clip_only", "gaussian"]
    added = [row for _, row in Plan({"noise": Gaussian(0.1)}, ChNode2022(), INFO, repeats=1).rows()]
    assert added == rows[::-1], "the same row, whoever asks for it"


def test_a_job_whose_entries_coincide_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("suite=attacks_quick", "suite.pgd_linf.norm=l2", "suite.pgd_linf.eps=0.5")
    with pytest.raises(BadInput, match=r"suite\.pgd_linf and suite\.pgd_l2: both measure pgd_l2 0\.5 with the same"):
        train(*words)
    assert not [*tmp_path.rglob("*.csv")] and not [*tmp_path.rglob("config.yaml")]
