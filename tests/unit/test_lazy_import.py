"""`import robode` costs nothing; what it gives is looked up when it is first used."""

import subprocess
import sys

import pytest

import robode
import robode.api

HEAVY = ("torch", "lightning", "pandas", "hydra", "matplotlib", "numpy", "robode.api")


def _after(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_its_errors_and_its_names_import_nothing_heavy() -> None:
    look = f"import sys, robode; robode.BadInput, dir(robode); print(sorted(sys.modules.keys() & set({HEAVY})))"
    assert _after(look) == "[]"


def test_every_name_is_that_of_the_api() -> None:
    for name in robode.__all__:
        found = getattr(robode, name)
        assert found.__name__ == name and found.__doc__ and name in dir(robode)
    assert set(robode.api.__all__) - {"work"} == set(robode.__all__) - {"BadInput", "JobFailed"}


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trane'"):
        _ = robode.trane  # type: ignore[attr-defined]
