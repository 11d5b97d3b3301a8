"""The files that `scripts/try_versions.py` installs are the ends of what pyproject.toml admits."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = {each.name.lower(): each.specifier for each in map(Requirement, PROJECT["dependencies"])}
EXTRAS = [Requirement(text) for group in PROJECT["optional-dependencies"].values() for text in group]


def pins(end: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / f"constraints-{end}.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    return {name.lower(): Version(version) for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("end", ["lowest", "newest", "cpu"])
def test_every_pin_is_admitted(end):
    known = DIRECT | {each.name.lower(): each.specifier for each in EXTRAS}
    assert [f"{name}=={pin}" for name, pin in pins(end).items() if name in known and pin not in known[name]] == []


@pytest.mark.parametrize("end", ["lowest", "newest", "cpu"])
def test_every_direct_dependency_is_pinned(end):
    assert set(DIRECT) - set(pins(end)) == set()


def test_the_lowest_pins_are_the_lower_bounds():
    for each in [*map(Requirement, PROJECT["dependencies"]), *EXTRAS]:
        (low,) = [Version(spec.version) for spec in each.specifier if spec.operator == ">="]
        assert pins("lowest")[each.name.lower()] == low, each.name


def test_the_newest_pins_are_nowhere_below_those_that_make_installs():
    newest, usual = pins("newest"), pins("cpu")
    assert [name for name in DIRECT if newest[name] < usual[name]] == []
