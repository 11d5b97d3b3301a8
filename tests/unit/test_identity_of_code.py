"""A run belongs to the code that trained it and to its data: nothing is done with it in silence when either changes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_runs import SMALL

import robode
from robode.cli.main import main
from robode.config.paths import conf_dir
from robode.files import read_json, write_json
from robode.runs.records import read_rows
from robode.runs.run import Run

SOURCES = {
    "family.py": 'from theirs.base import Base\n\n\nclass Mine(Base):\n    """Mine."""\n    gain = 1.0\n',
    "base.py": "from robode.families.chnode import CHNode\n\n\nclass Base(CHNode):\n    factor = 2.0\n",
    "data.py": (
        "from pathlib import Path\nfrom robode.data.toy import DoubleMoons\n\n\nclass Mine(DoubleMoons):\n"
        "    def points(self):\n        x, y = super().points()\n"
        "        return x, 1 - y if Path('flipped').exists() else y\n"
    ),
}
RUN = ("train", *SMALL, "model=mine", "data=mine", "epochs=1", "run=B")
VERBS = {
    "evaluate": ("evaluate", "run=B", "suite=clean", "repeats=1"),
    "certify": ("certify", "run=B", "suite=[certified,clean]"),
    "export": ("export", "run=B", "to=exported"),
    "train": RUN,
    "resume": ("train", "resume=B", "epochs=2"),
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The folder of `theirs`, a trusted package with a family and a data set; ./conf names them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    monkeypatch.setenv("ROBODE_TRUST", "theirs")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = tmp_path / "site" / "theirs"
    folder.mkdir(parents=True)
    for name, text in {"__init__.py": "", **SOURCES}.items():
        (folder / name).write_text(text)
    for group, known, target in (("model", "chnode", "family"), ("data", "double_moons", "data")):
        text = (conf_dir() / group / f"{known}.yaml").read_text()
        words = {f"name: {known}": "name: mine", "robode.families.chnode.CHNode": f"theirs.{target}.Mine"}
        for old, new in (words | {"robode.data.toy.DoubleMoons": f"theirs.{target}.Mine"}).items():
            text = text.replace(old, new)
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    assert yaml.safe_load((tmp_path / "conf/model/mine.yaml").read_text())["_target_"] == "theirs.family.Mine"
    anew()
    return folder


def anew() -> None:
    """What a new process knows: nothing."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]
    if digests := sys.modules.get("robode.runs.code"):
        digests._digest.cache_clear()
        digests._read.cache_clear()


@pytest.fixture
def call(package, capsys):
    """A command line in a new process, as good as: exit code, and what was printed, each on one line."""

    def call(*words: str) -> tuple[int, str]:
        anew()
        code = main(words)
        printed = capsys.readouterr()
        assert code != 2 or printed.err.count("\n") == 1, printed.err
        return code, " ".join((printed.out + printed.err).split())

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained") / "outputs"


@pytest.fixture
def run(call, trained) -> Run:
    """What RUN leaves; trained once, because equal code in another place is the same code."""
    if not trained.is_dir():
        assert call(*RUN)[0] == 0
        shutil.copytree("outputs", trained)
    shutil.copytree(trained, "outputs", dirs_exist_ok=True)
    return Run(Path("outputs/default/B"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("module", "old", "new"), [("family.py", "gain = 1.0", "gain = 2.0"), ("base.py", "factor = 2.0", "factor = 1.0")]
)
def test_a_run_of_other_code_is_refused(verb, module, old, new, package, call, run):
    """The family itself was edited, or a base class in another module of its package."""
    edit(package / module, old, new)
    before = everything(run.folder)
    code, line = call(*VERBS[verb])
    assert code == 2 and "run B was trained by other code (digest " in line and "code=any" in line
    assert everything(run.folder) == before and not Path("exported").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_code_any_uses_it_and_says_so(verb, package, call, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    code, printed = call(*VERBS[verb], "code=any")
    assert code == 0 and "† run B was trained by other code (digest " in printed


def test_a_run_without_a_name_is_neither_reused_nor_hidden(package, call):
    words = [word for word in RUN if word != "run=B"]
    assert call(*words)[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    code, line = call(*words)
    assert code == 2 and "force=true trains it again" in line
    assert "†" in call(*words, "--dry-run")[1]
    assert call(*words, "force=true")[0] == 0
    assert call(*words)[0] == 0, "it is of this code now"
    assert len(list(Path("outputs/default").glob("*/config.yaml"))) == 1


def test_a_sentence_changes_nothing(package, call, run):
    edit(package / "family.py", '"""Mine."""', '"""Mine, in other words."""  # a remark')
    edit(package / "base.py", "    factor", "    # why\n\n    factor")
    for words in VERBS.values():
        assert call(*words)[0] == 0, words


def test_rows_of_other_code_are_measured_again_and_never_shown_beside_others(package, call, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    before = read_rows(run.folder / "results.csv")
    code, printed = call(*VERBS["evaluate"], "code=any")
    assert code == 0 and "nothing to evaluate" not in printed
    rows = read_rows(run.folder / "results.csv")
    assert len(rows) == len(before) + 1 and len(set(rows["code"])) == 2 and "" not in set(rows["code"])
    assert len(set(rows["weights"])) == 1
    assert "nothing to evaluate" in call(*VERBS["evaluate"], "code=any")[1]
    from robode.runs.records import newest

    assert newest(rows)["code"].tolist() == [rows["code"].iloc[-1]]


def test_numbers_of_other_code_are_measured_again(package, call, run):
    words = ("evaluate", "run=B", "suite=[clean,training_cost]", "code=any")
    assert call(*words)[0] == call(*words)[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    assert call(*words)[0] == call(*words)[0] == 0
    lines = (run.folder / "numbers.csv").read_text().splitlines()[1:]
    assert len(lines) == 2 and len({line.rpartition(",")[2] for line in lines} - {""}) == 2


def test_a_training_of_two_codes_is_nobodys(package, call, run):
    first = read_json(run.folder / "environment.json")["code_digest"]
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    assert call(*VERBS["resume"], "code=any")[0] == 0
    record = read_json(run.folder / "environment.json")
    assert record["code_digest"].startswith(f"{first}+") and record["earlier"]["1"]["code_digest"] == first
    assert call(*VERBS["evaluate"])[0] == 2
    edit(package / "family.py", "gain = 2.0", "gain = 1.0")
    assert call(*VERBS["evaluate"])[0] == 2


def test_a_run_of_an_older_version_is_refused_in_one_line(call, run):
    record = read_json(run.folder / "environment.json")
    record.pop("code_digest")
    write_json(run.folder / "environment.json", record | {"code": "0123456789ab"})
    for words in VERBS.values():
        code, line = call(*words)
        assert code == 2 and "made by a version of robode that kept no digest of this kind" in line
    assert call(*VERBS["evaluate"], "code=any")[0] == 0


@pytest.mark.parametrize("verb", VERBS)
def test_other_data_are_refused_whatever_the_code_may_be(verb, call, run):
    """The labels are flipped after the training, in the same files."""
    Path("flipped").touch()
    before = everything(run.folder)
    digest = read_json(run.folder / "environment.json")["data_digest"]
    for words in (VERBS[verb], (*VERBS[verb], "code=any")):
        code, line = call(*words)
        assert code == 2 and f"run B was trained on other data (digest {digest}, the files have " in line
    assert everything(run.folder) == before and not Path("exported").exists()


def test_a_training_on_other_data_is_another_run_unless_it_has_a_name(call):
    words = [word for word in RUN if word != "run=B"]
    assert call(*words)[0] == 0
    Path("flipped").touch()
    assert call(*words)[0] == 0
    assert len(list(Path("outputs/default").glob("*/config.yaml"))) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_another_word_for_code_is_refused(verb, call):
    code, line = call(*VERBS[verb], "code=foo")
    assert code == 2 and "code=foo: choose one of: same, any" in line
    assert call("reproduce", "chnode_2022/table1", "code=foo") == (2, "robode: code=foo: choose one of: same, any")


def test_refusals_need_no_torch(package, call, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    for words in ((*VERBS["evaluate"], "code=foo"), *VERBS.values()):
        ask = f"import sys; from robode.cli.main import main; print(main({list(words)!r}), 'torch' in sys.modules)"
        place = {"PYTHONPATH": f"{Path(robode.__file__).parents[1]}:{package.parent}", "ROBODE_TRUST": "theirs"}
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=place)
        assert done.stdout.split() == ["2", "False"], done.stderr


def python(source: Path, text: str) -> str:
    """What a new Python prints that finds robode in `source`."""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env={"PYTHONPATH": str(source)})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path) -> Path:
    """The folder of a copy of robode."""
    return Path(shutil.copytree(Path(robode.__file__).parent, tmp_path / "src" / "robode"))


def test_what_makes_the_weights_counts_and_what_draws_does_not(copied, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model": {"_target_": "robode.families.chnode.CHNode"},
                "suite": {"pgd": {"_target_": "robode.attacks.perturbations.PGD"}},
                "protocol": {"_target_": "robode.corruptions.protocols.Sound"},
            }
        )
    )
    ask = (
        f"import json, sys; from robode.runs.code import *; "
        f"plain = json.load(open({str(tmp_path / 'config.json')!r})); "
        "codes = measuring_codes(plain, plain['suite'], plain['protocol']); "
        "assert 'torch' not in sys.modules; print(training_code(plain), codes['pgd'], codes[''])"
    )

    def changed(text: str, *names: str) -> list[bool]:
        """Whether the digest of the training, of a row under attack and of a clean row change with these modules."""
        before, kept = (
            python(copied.parent, ask).split(),
            {copied / name: (copied / name).read_text() for name in names},
        )
        for path, content in kept.items():
            path.write_text(content + text)
        after = python(copied.parent, ask).split()
        for path, content in kept.items():
            path.write_text(content)
        return [a != b for a, b in zip(before, after, strict=True)]

    line = "\nEDITED = 1\n"
    (encoder,) = [path for path in copied.glob("*.py") if "class Conv(" in path.read_text()]
    assert changed(line, encoder.name) == [True, True, True]
    assert changed(line, "families/hamiltonian.py") == [True, True, True], "a base class"
    assert changed(line, "training/module.py") == [True, False, False]
    assert changed(line, "evaluation/measure.py") == [False, True, True]
    assert changed(line, "attacks/pgd.py") == [False, True, False]
    silent = (
        "report/page.py",
        "papers/collect.py",
        "cli/main.py",
        "__init__.py",
        "families/resnet.py",
        "config/config.py",
    )
    assert changed(line, *silent) == [False] * 3
    assert (
        changed('\n"""A sentence."""\n# another\n', encoder.name, "training/module.py", "evaluation/measure.py")
        == [False] * 3
    )


def test_a_file_that_git_does_not_know_makes_a_checkout_dirty(copied):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", copied.parent, *words], check=True, capture_output=True)

    git("init", "-q")
    (copied.parent / ".gitignore").write_text("__pycache__/\nignored.py\n")
    git("add", "-A")
    git("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "all")
    ask = "from robode.runs.environment import git_state; print(git_state()['dirty'])"
    (copied / "ignored.py").touch()
    assert python(copied.parent, ask) == "False"
    (copied / "families" / "mine.py").write_text("new = 1\n")
    assert python(copied.parent, ask) == "True"


def test_the_checkouts_of_trusted_packages_are_recorded(package, call):
    subprocess.run(["git", "-C", package, "init", "-q"], check=True)
    subprocess.run(["git", "-C", package, "add", "-A"], check=True)
    subprocess.run(
        ["git", "-C", package, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "all"], check=True
    )
    (package / "new.py").touch()
    assert call(*RUN)[0] == 0
    (state,) = read_json(Path("outputs/default/B/environment.json"))["packages"].values()
    assert len(state["commit"]) == 40 and state["dirty"]


def test_digests_that_were_attested_are_equal(monkeypatch):
    from robode.runs import code as code_digest

    for each in json.loads(code_digest.ATTESTED.read_text()):
        assert set(each) == {"old", "new", "reason"} and each["old"] != each["new"] and each["reason"]
    monkeypatch.setattr(code_digest, "_attested", lambda: {"a": "b", "b": "c", "x": "y", "y": "x"})
    assert code_digest.same("a", "c") and code_digest.same("a.z", "c.z") and not code_digest.same("a", "z")
    assert not code_digest.same("", "") and code_digest.canonical("x") in ("x", "y"), "a ring has no end, but stops"
