"""Help, lists and completion tell what the real configuration holds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer

from robode import __version__
from robode.cli.completion import SCRIPTS, candidates
from robode.config import schema
from robode.config.config import CONFIGS
from robode.config.listing import GROUPS, entries
from robode.config.paths import conf_dir


def test_help_and_version(robode: Callable[..., Answer]) -> None:
    assert robode().out == robode("--help").out
    for verb in (*CONFIGS, *OTHERS):
        assert f"\n  {verb} " in robode("--help").out
    assert robode("--version").out == f"robode {__version__}\n"


OTHERS = ("reproduce", "runs", "compare", "report", "clean", "check", "init", "list", "completion")


@pytest.mark.parametrize("verb", [*CONFIGS, *OTHERS])
def test_every_verb_explains_itself(verb: str, robode: Callable[..., Answer]) -> None:
    for word in ("-h", "--help"):
        answer = robode(verb, word)
        assert (answer.code, answer.err) == (0, "") and f"robode {verb}" in answer.out


@pytest.mark.parametrize("verb", CONFIGS)
def test_verb_help_lists_words_and_groups(verb: str, robode: Callable[..., Answer]) -> None:
    out = robode(verb, "--help").out
    for word, about in schema.words(verb).items():
        assert f"  {word}" in out
        assert about in out
    all_groups = set(GROUPS.values()) - {"paper"}
    own_data = {"data"} if verb == "stabilise" else set()  # of the run: their place alone can be said
    for group in all_groups if verb == "train" else all_groups & set(schema.words(verb)) - own_data:
        for name in entries(group):
            assert name in out
    if verb == "train":
        assert "depth=8" in out
        assert "model=chnode" in out


def test_lists(robode: Callable[..., Answer]) -> None:
    out = robode("list").out
    for title, group in GROUPS.items():
        how = "robode reproduce PAPER/ITEM" if group == "paper" else f"{group}=…"
        assert f"{title}  ({how})" in out
        for name, about in entries(group).items():
            assert f" {name} " in out
            assert about in out
    assert "chnode" not in robode("list", "data").out


@pytest.mark.parametrize(("title", "name"), [
    ("encoders", "augment"), ("heads", "orthonormal"), ("objectives", "trades"), ("callbacks", "early_stopping"),
    ("optimizers", "adam_decay"), ("augmentations", "crop_flip"),
])  # fmt: skip
def test_every_group_that_users_choose_from_has_a_list(title: str, name: str, robode: Callable[..., Answer]) -> None:
    assert f" {name} " in robode("list", title).out


def test_every_yaml_file_begins_with_a_description() -> None:
    silent = [
        f"{group}/{name}"
        for group in [path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra"]
        for name, about in entries(group).items()
        if len(about) < 10
    ]
    assert silent == []


def test_lists_show_the_users_files(robode: Callable[..., Answer], folder: Path) -> None:
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "mine.yaml").write_text("# a family of my own\n")
    assert " mine " in robode("list", "models").out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("robode tr", ["train"]),
        ("robode rep", ["report", "reproduce"]),
        ("robode list mo", ["models"]),
        ("robode completion ", ["bash", "fish", "zsh"]),
        ("robode train dep", ["depth="]),
        ("robode train model=hd", ["model=hdnn", "model=hdnn_ms1", "model=hdnn_ms2", "model=hdnn_ms3"]),
        ("robode train depth=4 integrator=im", ["integrator=imex", "integrator=implicit_midpoint"]),
        ("robode train model=hdnn model.sep", ["model.separable="]),
        ("robode evaluate check", ["checkpoint="]),
        ("robode check model=hd", ["model=hdnn", "model=hdnn_ms1", "model=hdnn_ms2", "model=hdnn_ms3"]),
        ("robode runs s", ["sort="]),
        ("robode clean --", ["--yes"]),
        ("robode ce", ["certify"]),
        ("robode certify rad", ["radii="]),
        ("robode export to", ["to="]),
        ("robode nothing x", []),
    ],
)
def test_completion(line: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert candidates(line) == expected


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_scripts_call_the_query(shell: str, robode: Callable[..., Answer]) -> None:
    script = robode("completion", shell).out
    assert "robode completion query" in script


def test_query_prints_one_candidate_a_line(robode: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "robode completion ")
    assert robode("completion", "query").out.splitlines() == ["bash", "fish", "zsh"]
