"""Configuration folders of the user's: found, checked like our own, and never able to steer Hydra."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from command_line import Answer, Jobs

from robode.config import compose
from robode.config.paths import conf_dir

GLOBAL = "# @package _global_\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("how", ["--config-dir", "environment", "./conf"])
def test_search_path(
    how: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / ("conf" if how == "./conf" else "it's mine")
    write(place, {"experiment/quick.yaml": GLOBAL + "# a quick one\nepochs: 7\nmodel:\n  width: 4\n"})
    if how == "environment":
        monkeypatch.setenv("ROBODE_CONFIG_PATH", str(place))
    words = ["--config-dir", str(place)] if how == "--config-dir" else []
    answer = robode("train", "experiment=quick", "lr=0.5", *words)
    assert answer.code == 0, answer.err
    (cfg,) = jobs.configs
    assert (cfg.epochs, cfg.model.arguments["width"], cfg.lr, cfg.experiment) == (7, 4, 0.5, "quick")


def test_a_file_of_the_users_cannot_replace_ours(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    write(folder / "conf", {"train.yaml": "depth: 99\n", "model/chnode.yaml": "name: fake\n"})
    robode("train")
    assert (jobs.configs[0].depth, jobs.configs[0].model.name) == (8, "chnode")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch: 5\n", "experiment/mine.yaml: unknown key 'epoch': did you mean 'epochs'?"),
        ("epochs: many\n", "experiment/mine.yaml: epochs: Value 'many' of type 'str'"),
        ("epochs: [\n", "mine.yaml, line 4: cannot be read as YAML"),
        ("model:\n  _target_: os.system\n", "_target_=os.system: expected a class from robode"),
        ("data:\n  source:\n    _target_: subprocess.Popen\n", "_target_=subprocess.Popen"),
    ],
)
def test_mistakes_in_files(text: str, expected: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    write(folder / "conf", {"experiment/mine.yaml": GLOBAL + "# mine\n" + text})
    answer = robode("train", "experiment=mine")
    assert expected in answer.line
    assert answer.code == 2
    assert jobs.configs == []


COMMAND = "_target_: os.system\ncommand: touch pwned\n"
FOREIGN = {
    "callback": "hydra: {callbacks: {a: {_target_: os.system, command: touch pwned}}}\n",
    "chosen callback": "defaults:\n  - override /hydra/callbacks: evil\n",
    "logging": "hydra: {job_logging: {root: {level: INFO}}}\n",
    "logging handler": "hydra: {hydra_logging: {handlers: {a: {(): os.system, command: touch pwned}}}}\n",
    "launcher": "hydra: {launcher: {_target_: os.system}}\n",
    "chosen launcher": "defaults:\n  - override /hydra/launcher: evil\n",
    "sweeper": "hydra: {sweeper: {max_batch_size: 1}}\n",
    "environment": "hydra: {job: {env_set: {PATH: .}}}\n",
    "folder": "hydra: {run: {dir: elsewhere}}\n",
    "search path": "hydra: {searchpath: [elsewhere]}\n",
}


@pytest.mark.parametrize(("kind", "sweep"), [*((kind, False) for kind in FOREIGN), ("callback", True)])
def test_files_may_not_steer_hydra(
    kind: str, sweep: bool, robode: Callable[..., Answer], folder: Path, jobs: Jobs
) -> None:
    files = {"hydra/callbacks/evil.yaml": f"a: {{{', '.join(COMMAND.splitlines())}}}\n"}
    files |= {"hydra/launcher/evil.yaml": COMMAND, "experiment/good.yaml": GLOBAL + "# good\nepochs: 1\n"}
    files["experiment/evil.yaml"] = GLOBAL + "# evil\n" + FOREIGN[kind]
    write(folder / "conf", files)
    answer = robode("train", *(["-m", "experiment=good,evil"] if sweep else ["experiment=evil"]))
    assert "hydra" in answer.line
    assert answer.code == 2
    assert jobs.configs == []
    assert [path.name for path in folder.iterdir()] == ["conf"]


@pytest.mark.parametrize("where", ["experiment=", "+suite@_global_="])
def test_files_beside_every_configuration_folder_may_not_steer_hydra(
    where: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs
) -> None:
    write(folder, {"evil.yaml": GLOBAL + "# evil\n" + FOREIGN["folder"]})
    group = conf_dir() / where.lstrip("+").split("@")[0].rstrip("=")
    answer = robode("train", f"{where}{os.path.relpath(folder / 'evil', group)}")
    assert "hydra.run" in answer.line and answer.code == 2 and jobs.configs == []


def test_none_of_our_files_steers_hydra_but_the_primary_ones() -> None:
    """So that a composition of them alone needs no second one to be compared with."""
    for file in conf_dir().rglob("*.yaml"):
        content = yaml.safe_load(text := file.read_text()) or {}
        group = file.parent.relative_to(conf_dir())
        if group == Path() or group.parts[0] == "hydra":
            continue
        chosen = [str(each) for each in content.get("defaults", ())]
        assert "hydra" not in content and not [each for each in chosen if "hydra" in each], file
        assert not re.search(r"^# @package .*hydra", text, re.MULTILINE), file


def test_only_where_files_of_the_users_can_be_found_a_composition_is_compared_with_another(
    robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []
    once = compose._compose
    monkeypatch.setattr(compose, "_ours", {})
    monkeypatch.setattr(compose, "_compose", lambda request, words: asked.append(words) or once(request, words))
    assert robode("train", "-m", "depth=2,3").code == 0
    assert [list(words) for words in asked] == [["depth=2"], ["depth=3"]]
    write(folder / "conf", {"experiment/good.yaml": GLOBAL + "# good\nepochs: 1\n"})
    assert robode("train", "depth=2").code == 0
    assert [list(words) for words in asked[2:]] == [["depth=2"], []]


@pytest.mark.parametrize(
    "word",
    [
        "hydra.callbacks={a: {_target_: os.system}}",
        "+hydra.callbacks.a._target_=os.system",
        "hydra={callbacks: {a: 1}}",
        "hydra.run.dir=elsewhere",
        "hydra.job_logging.root.level=INFO",
        "hydra/job_logging=default",
        "hydra.launcher._target_=os.system",
        "+hydra.launcher.a={_target_: os.system}",
        "hydra/launcher=evil",
        "hydra.searchpath=[elsewhere]",
        "+model@hydra.callbacks=chnode",
        "~hydra.launcher",
        "--multirun --config-name=other",
    ],
)
def test_words_may_not_steer_hydra(word: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    write(folder / "conf", {"hydra/launcher/evil.yaml": COMMAND})
    answer = robode("train", *(word.split() if word.startswith("--") else [word]))
    assert answer.line
    assert answer.code == 2
    assert jobs.configs == []
    assert [path.name for path in folder.iterdir()] == ["conf"]


def test_words_for_hydra_that_are_allowed(robode: Callable[..., Answer], jobs: Jobs) -> None:
    answer = robode("train", "-m", "hydra/launcher=basic", "hydra.verbose=false", "depth=1,2")
    assert answer.code == 0, answer.err
    assert [cfg.depth for cfg in jobs.configs] == [1, 2]


@pytest.mark.parametrize("verb", ["evaluate", "certify"])
def test_what_data_say_of_training_is_dropped_where_nothing_is_trained(
    verb: str, robode: Callable[..., Answer]
) -> None:
    answer = robode(verb, "module=mine:make", "checkpoint=mine.pt", "data=pendulum", "--cfg")
    assert answer.code == 0, answer.err
    assert "name: pendulum" in answer.out and "objective" not in answer.out
