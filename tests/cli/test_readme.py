"""README, --help and conf say the same thing."""

import re
import shlex
from pathlib import Path

import pytest

from robode.cli.main import main
from robode.config import schema
from robode.config.config import CONFIGS
from robode.config.listing import options
from robode.runs.results import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# the commands of the section Extend need the package that it shows: tests/outside runs them
BLOCKS = "".join(re.findall(r"```bash\n(.*?)```", README.split("\n## Extend")[0], re.S))
LINES = [line.split("#")[0].strip() for line in BLOCKS.split("\n")]
VERBS = tuple(f"robode {verb} " for verb in CONFIGS)
ROBODE = [line for line in LINES if line.startswith(VERBS)]
MAKE = sorted(set(re.findall(r"\bmake ([a-z]+)", README)) - {"and"})
PATHS = set(re.findall(r"[`(]((?:docs|bench|tests|src|conf|scripts)/[\w./-]+)[`)]", README))
TABLE = dict(re.findall(r"^\| (`[^|]+`) \| (.+) \|$", README.split("## The keys")[1].split("\n## ")[0], re.M))


def test_there_is_something_to_check() -> None:
    assert len(ROBODE) >= 5 and {"run", "test", "smoke", "bench"} <= set(MAKE) and len(TABLE) >= 12


@pytest.mark.parametrize("line", ROBODE)
def test_every_command_composes(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*shlex.split(line)[1:], "--cfg"]) == 0, capsys.readouterr().err
    assert "depth" in capsys.readouterr().out or "train" not in line


@pytest.mark.parametrize("target", MAKE)
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_every_word_of_the_table_is_a_key_and_every_key_that_people_type_is_there() -> None:
    words = {word for cell in TABLE for word in re.findall(r"`([a-z_]+)", cell)}
    assert words <= {*schema.words("train"), *schema.words("evaluate")}
    assert set(schema.words("train")) - words == {"optimizer", "callbacks", "logger"}


@pytest.mark.parametrize(
    "group", ["model", "data", "integrator", "encoder", "head", "augment", "protocol", "suite", "trainer"]
)
def test_the_table_names_every_choice(group: str) -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", TABLE[f"`{group}`"]))
    assert set(options(group, ())) <= named


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_files_of_a_run_are_the_ones_that_exist() -> None:
    """Names in the README's file table are written by the package (searched in its source)."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/robode").rglob("*.py"))
    for name in re.findall(r"`([a-z_]+\.(?:csv|json|yaml|html))`", README):
        assert f'"{name}"' in source, name
    assert {"flow_ode", "flow_discrete", "severity"} <= set(COLUMNS)


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert Path("outputs/default/first/report.html").is_file()
