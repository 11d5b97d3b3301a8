"""What is published, and the workflows that test and publish it, say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import robode

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = {each.name: each.specifier for each in map(Requirement, PROJECT["dependencies"])}
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    assert isinstance(found, dict)
    return found


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def pins(end: str) -> dict[str, Version]:
    lines = (ROOT / f"constraints-{end}.txt").read_text().splitlines()
    return {name: Version(pin) for name, pin in (line.split("==") for line in lines if "==" in line)}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_has_jobs_that_read_only_and_run_what_is_there(file: Path) -> None:
    found = workflow(file.stem)
    assert found["permissions"] == {"contents": "read"} and found["jobs"] and True in found  # `on` is a truth value
    for name, job in found["jobs"].items():
        assert job["runs-on"] and job["timeout-minutes"] and all({"uses", "run"} & set(step) for step in job["steps"])
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[\w./-]+", step["uses"]) for step in job["steps"] if "uses" in step)
        assert set(job.get("permissions", ())) <= {"id-token"} and set([job.get("needs")]) - {None} <= set(
            found["jobs"]
        )
        for script in re.findall(r"(?:scripts|\.ci)/\w+(?:\.py)?", commands(job)):
            assert (ROOT / script).is_file(), f"{name}: {script}"
        known = {key for key in job.get("strategy", {}).get("matrix", {}) if key != "include"}
        known |= {key for entry in job.get("strategy", {}).get("matrix", {}).get("include", []) for key in entry}
        assert set(re.findall(r"matrix\.(\w+)", str(job["steps"]))) <= known


def test_every_python_that_is_promised_is_tested_with_the_lowest_and_the_highest_torch() -> None:
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in PYTHONS)
    jobs = workflow("ci")["jobs"]
    matrix = jobs["versions"]["strategy"]["matrix"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == matrix["python"] == PYTHONS
    lowest, newest = pins("lowest"), pins("newest")
    ends = [(each["torch"], each["torchvision"]) for each in matrix["include"]]
    assert ends == [tuple(f"{pin[name].major}.{pin[name].minor}" for name in ("torch", "torchvision"))
                    for pin in (lowest, newest)]  # fmt: skip
    assert matrix["torch"] == [torch for torch, _ in ends]
    for name, place in (("torch", 0), ("torchvision", 1)):
        low, high = (Version(end[place]) for end in ends)
        next_one = Version(f"{high.major}.{high.minor + 1}")
        assert low in DIRECT[name] and high in DIRECT[name] and next_one not in DIRECT[name]
        assert Version(f"{low.major}.{low.minor - 1}") not in DIRECT[name]


def test_a_release_is_built_checked_and_published_by_a_trusted_workflow_from_a_tag_alone() -> None:
    found = workflow("release")
    assert found[True] == {"push": {"tags": ["v*"]}}
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    assert publish["needs"] == "build" and publish["permissions"] == {"id-token": "write"} and publish["environment"]
    assert "permissions" not in build and not [step for step in publish["steps"] if "run" in step]
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    said = commands(build)
    for needed in ("make test", "check_wheel.py --keep dist", "twine check --strict", "CHANGELOG.md"):
        assert needed in said
    artifacts = [
        step["with"] for job in (build, publish) for step in job["steps"] if "artifact" in step.get("uses", "")
    ]
    assert [(each["name"], each["path"]) for each in artifacts] == [("dist", "dist/")] * 2


def test_the_version_is_the_same_wherever_it_stands() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == robode.__version__ and "version" in PROJECT["dynamic"]
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    assert citation["license"] == PROJECT["license"] and (ROOT / "LICENSE").is_file()
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert (ROOT / "src/robode/py.typed").is_file() and "Typing :: Typed" in PROJECT["classifiers"]


def test_every_extra_that_the_readme_or_a_message_names_exists() -> None:
    files = [ROOT / "README.md", *(ROOT / "src").rglob("*.py")]
    named = {extra for file in files for extra in re.findall(r"robode\[(\w+)\]", file.read_text(encoding="utf-8"))}
    assert {"fast", "attacks", "export"} <= named <= set(PROJECT["optional-dependencies"])
