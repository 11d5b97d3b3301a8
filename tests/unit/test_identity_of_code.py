"""A run belongs to the code that trained it and to its data: nothing is done with it in silence when either changes."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from small_runs import SMALL

import robode
from robode.api import certify, evaluate, export, train
from robode.cli.main import main
from robode.config.paths import conf_dir
from robode.files import read_json, write_json
from robode.runs import code as digests
from robode.runs.results import read_rows
from robode.runs.run import Run
from robode.runs.table import texts

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


@pytest.fixture(scope="module", autouse=True)
def own_sources_are_read_once():
    """Each digest reads 150 files of robode's own, which no test changes in this process; a user's are read anew."""
    anything = digests._read.__wrapped__
    own, ours = cache(anything), Path(robode.__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_read", lambda file, name: (own if ours in file.parents else anything)(file, name))
        yield


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
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "beside", "others")]:
        del sys.modules[name]
    digests._digest.cache_clear()
    if assembly := sys.modules.get("robode.training.assembly"):
        assembly._digests.clear()


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


API = {
    "evaluate": lambda code: evaluate("B", suite="clean", repeats=1, code=code),
    "certify": lambda code: certify("B", suite=["certified", "clean"], code=code),
    "export": lambda code: export("B", "exported", code=code),
    "resume": lambda code: train(resume="B", epochs=2, code=code),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", API)
def test_every_result_says_whether_other_code_trained_the_run(verb, package, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    anew()
    assert API[verb]("any").other_code
    edit(package / "family.py", "gain = 2.0", "gain = 1.0")
    anew()
    assert verb == "resume" or not API[verb]("same").other_code  # a resumed run belongs to the code that went on


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "certify"])
def test_a_result_is_reused_where_nothing_was_left_to_measure(verb, package, run):
    API[verb]("same")
    again = API[verb]("same")
    assert again.reused and not again.other_code
    evaluate("B", suite="clean", repeats=1, limit=20)
    assert not evaluate("B", suite="clean", repeats=1, limit=21).reused


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
    for path in {"certify": [run.folder], "export": [Path("exported")]}.get(verb, []):
        assert read_json(path / "certificate.json")["other_code"] is True
    edit(package / "family.py", "gain = 2.0", "gain = 1.0")
    if verb in ("certify", "export"):
        assert call(*VERBS[verb])[0] == 0
        assert (
            read_json((run.folder if verb == "certify" else Path("exported")) / "certificate.json")["other_code"]
            is False
        )


@pytest.mark.slow
def test_a_module_beside_the_package_counts(package, call):
    """No class of it is named anywhere: the package imports it."""
    beside = package.parent / "beside.py"
    beside.write_text("FACTOR = 2.0\n")
    (package / "base.py").write_text("from beside import FACTOR\n" + SOURCES["base.py"].replace("2.0", "FACTOR"))
    assert call(*RUN)[0] == 0
    assert call(*RUN)[0] == 0
    edit(beside, "2.0", "1.0")
    for words in VERBS.values():
        code, line = call(*words)
        assert code == 2 and "run B was trained by other code (digest " in line


@pytest.mark.parametrize(
    ("place", "trust", "counts"),
    [
        ("site", "theirs", True),
        ("lib/site-packages", "theirs", False),
        ("lib/dist-packages", "theirs", False),
        ("lib/site-packages", "theirs,others", True),
        ("lib/site-packages", "theirs,others.deep", True),
    ],
)
def test_modules_count_where_they_are_not_installed_or_are_trusted(
    place, trust, counts, package, tmp_path, monkeypatch
):
    """A module of another package, which a module of that package imports in turn."""
    monkeypatch.setenv("ROBODE_TRUST", trust)
    others = tmp_path / place / "others"
    others.mkdir(parents=True)
    for name, text in {"__init__": "", "thing": "from others.deep import A", "deep": "A = 1"}.items():
        (others / f"{name}.py").write_text(text + "\n")
    edit(package / "base.py", "class Base", "import json, others.thing\n\n\nclass Base")
    if trust.endswith("deep"):  # nothing but what is trusted counts, so the way there must
        edit(package / "base.py", "others.thing", "others.deep")
    monkeypatch.syspath_prepend(tmp_path / place)
    plain = yaml.safe_load((tmp_path / "conf/model/mine.yaml").read_text())
    before = digest(plain)
    edit(others / "deep.py", "1", "2")
    assert (digest(plain) != before) == counts
    after = digest(plain)
    edit(others / "deep.py", "A = 2", "# a sentence\nA = 2")
    assert digest(plain) == after


def digest(model: dict) -> str:
    """Of the code that trains a model, in a new process."""
    from robode.runs.code import training_code

    anew()
    return training_code({"model": model})


def test_the_standard_library_never_counts(package):
    from robode.runs.code import _file, _installed

    assert all(_installed(name, _file(name.split("."))) for name in ("json", "json.decoder", "csv", "torch", "yaml"))
    assert not _installed("theirs.base", _file(["theirs", "base"]))


@pytest.mark.slow
def test_a_run_without_a_name_is_neither_reused_nor_hidden(package, call):
    words = [word for word in RUN if word != "run=B"]
    assert call(*words)[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    code, line = call(*words)
    assert code == 2 and "force=true trains it again" in line
    assert call(*words, "--dry-run") == (code, line), "the dry run refuses as the command does"
    assert "†" in call(*words, "code=any", "--dry-run")[1]
    assert call(*words, "force=true")[0] == 0
    assert call(*words)[0] == 0, "it is of this code now"
    assert len(list(Path("outputs/default").glob("*/config.yaml"))) == 1


@pytest.mark.slow
def test_a_sentence_changes_nothing(package, call, run):
    edit(package / "family.py", '"""Mine."""', '"""Mine, in other words."""  # a remark')
    edit(package / "base.py", "    factor", "    # why\n\n    factor")
    for words in VERBS.values():
        assert call(*words)[0] == 0, words


@pytest.mark.slow
def test_rows_of_other_code_are_measured_again_and_never_shown_beside_others(package, call, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    before = read_rows(run.folder / "results.csv")
    code, printed = call(*VERBS["evaluate"], "code=any")
    assert code == 0 and "nothing to evaluate" not in printed
    rows = read_rows(run.folder / "results.csv")
    assert len(rows) == len(before) + 1 and len(set(rows["code"])) == 2 and "" not in set(rows["code"])
    assert len(set(rows["weights"])) == 1
    assert "nothing to evaluate" in call(*VERBS["evaluate"], "code=any")[1]
    from robode.runs.results import newest

    assert newest(rows)["code"].tolist() == [rows["code"].iloc[-1]]


@pytest.fixture
def gain(package):
    """Sets the gain of the family."""

    def set_to(value: float) -> None:
        text = (package / "family.py").read_text().split("gain = ")[0]
        (package / "family.py").write_text(f"{text}gain = {value}\n")

    return set_to


def reported(call, *words: str) -> tuple[str, str]:
    """What `robode report B` prints, and its table."""
    code, printed = call("report", "B", "to=page", *words)
    assert code == 0, printed
    return printed, Path("page/table.md").read_text()


@pytest.mark.slow
def test_what_todays_code_measured_goes_before_what_other_code_did_later(gain, call, run):
    """Edit, evaluate under code=any, edit back: reports and the page show what they showed before."""
    words = ("evaluate", "run=B", "suite=[clean,training_cost]", "repeats=1")
    assert call(*words)[0] == 0
    before, page = reported(call), (run.folder / "report.html").read_text()
    assert "†" not in page + "".join(before)
    gain(2.0)
    assert call(*words, "code=any")[0] == 0
    assert "† run B was trained by other code" in reported(call)[0]
    gain(1.0)
    assert reported(call) == before
    assert call(*words)[0] == 0
    assert "†" not in (run.folder / "report.html").read_text()


@pytest.mark.slow
def test_rows_of_other_code_are_marked_where_there_are_no_others(gain, call, run):
    (run.folder / "results.csv").unlink()
    gain(2.0)
    assert call(*VERBS["evaluate"], "code=any")[0] == 0
    page = (run.folder / "report.html").read_text()
    assert "† run B was trained by other code (digest " in page and "clean †" not in page
    gain(1.0)
    printed, table = reported(call)
    assert "† run B has measurements that only other code has made" in printed and "trained by" not in printed
    assert table.count("†") == 2, "the cell, and what it means"
    assert call("train", *RUN[1:])[0] == 0
    page = (run.folder / "report.html").read_text()
    assert "†" not in page, "what the training's suite lacked is measured now"


@pytest.mark.slow
def test_the_page_of_a_run_marks_what_only_other_code_has_measured(gain, call, run):
    gain(2.0)
    from robode.report.page import write_page

    anew()
    page = write_page(run.folder).read_text()
    assert "† run B was trained by other code (digest " in page and "measurements were made by other code" in page
    assert "clean †" in page
    gain(1.0)
    assert call(*VERBS["evaluate"])[0] == 0
    assert "†" not in (run.folder / "report.html").read_text(), "it is written again though nothing was measured"


@pytest.mark.slow
def test_a_perturbation_that_was_edited_and_edited_back(package, gain, call, run):
    """The network's code stays the same; what its answers mean has changed in between."""
    (package / "noise.py").write_text(
        "from robode.corruptions.noise import Gaussian\n\n\nclass Mine(Gaussian):\n    factor = 1.0\n"
    )
    Path("conf/suite").mkdir()
    Path("conf/suite/mine.yaml").write_text("mine:\n  _target_: theirs.noise.Mine\n  var: [0.1]\n  suite: mine\n")
    words = ("evaluate", "run=B", "suite=mine", "repeats=1")
    assert call(*words)[0] == 0
    before = reported(call)
    edit(package / "noise.py", "1.0", "2.0")
    assert call(*words)[0] == 0, "the run itself is of this code"
    edit(package / "noise.py", "2.0", "1.0")
    assert reported(call) == before and "†" not in before[1]
    results = (run.folder / "results.csv").read_text().splitlines(keepends=True)
    (run.folder / "results.csv").write_text("".join([*results[:-2], results[-1]]))
    printed, table = reported(call)
    assert "†" in printed and "†" in table


@pytest.mark.slow
def test_numbers_of_other_code_are_measured_again(package, call, run):
    words = ("evaluate", "run=B", "suite=[clean,training_cost]", "code=any")
    assert call(*words)[0] == call(*words)[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    assert call(*words)[0] == call(*words)[0] == 0
    numbers = texts(run.folder / "numbers.csv")
    assert len(numbers) == 2 and len(set(numbers["code"]) - {""}) == 2


@pytest.mark.slow
def test_a_training_of_two_codes_is_nobodys(package, call, run):
    first = read_json(run.folder / "environment.json")["code_digest"]
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    assert call(*VERBS["resume"], "code=any")[0] == 0
    record = read_json(run.folder / "environment.json")
    assert record["code_digest"].startswith(f"{first}+") and record["earlier"]["1"]["code_digest"] == first
    assert call(*VERBS["evaluate"])[0] == 2
    edit(package / "family.py", "gain = 2.0", "gain = 1.0")
    assert call(*VERBS["evaluate"])[0] == 2


@pytest.mark.slow
def test_a_run_of_an_older_version_is_refused_in_one_line(call, run):
    record = read_json(run.folder / "environment.json")
    record.pop("code_digest")
    write_json(run.folder / "environment.json", record | {"code": "0123456789ab"})
    for words in VERBS.values():
        code, line = call(*words)
        assert code == 2 and "made by a version of robode that kept no digest of this kind" in line
    assert call(*VERBS["evaluate"], "code=any")[0] == 0


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_refuses_what_the_command_refuses(verb, package, call, run):
    """Of data that have changed, and of code; and takes what the command takes."""
    before = everything(run.folder)
    assert call(*VERBS[verb], "--dry-run")[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    assert call(*VERBS[verb], "--dry-run") == call(*VERBS[verb])
    edit(package / "family.py", "gain = 2.0", "gain = 1.0")
    Path("flipped").touch()
    code, line = call(*VERBS[verb], "--dry-run")
    assert code == 2 and (code, line) == call(*VERBS[verb])
    assert "run B was trained on other data" in line and everything(run.folder) == before


@pytest.mark.slow
def test_a_training_on_other_data_is_another_run_unless_it_has_a_name(call):
    words = [word for word in RUN if word != "run=B"]
    assert call(*words)[0] == 0
    Path("flipped").touch()
    assert call(*words)[0] == 0
    assert len(list(Path("outputs/default").glob("*/config.yaml"))) == 2


@pytest.mark.slow
def test_a_seed_of_other_code_does_not_stop_the_others(package, call):
    """The exit code is that of a sweep with failures."""
    words = [word for word in RUN if word != "run=B"]
    assert call(*words, "seed=1")[0] == 0
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    code, line = call(*words, "seeds=[1,2]")
    assert code == 1 and "seed=1): run mine-" in line and "was trained by other code" in line
    assert "seed=2): run" not in line
    runs = {Run(path.parent).config().seed: Run(path.parent) for path in Path("outputs").glob("**/config.yaml")}
    assert runs[2].trained and runs[2].state == "done"


NEEDS_A_FILE = {
    "load": "    def load(self):\n        open('points.npz')\n        return super().load()\n",
    "constructor": "    def __init__(self, **keys):\n        open('points.npz')\n        super().__init__(**keys)\n",
    "info": "    @property\n    def info(self):\n        open('points.npz')\n        return super().info\n",
    "damaged": "    def load(self):\n        raise RuntimeError(open('points.npz').read())\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("where", NEEDS_A_FILE)
def test_a_source_whose_file_is_missing_is_bad_input(where, package, call):
    """Whatever the verb: one line that names the file, and nothing is written. Weights go out without their data."""
    own = "class Mine(DoubleMoons):\n"
    (package / "data.py").write_text(SOURCES["data.py"].replace(own, own + NEEDS_A_FILE[where]))
    if where == "damaged":
        Path("points.npz").write_text("no archive: points.npz")
        code, line = call(*RUN)
        assert code == 2 and "data=mine" in line and "no archive: points.npz" in line and not Path("outputs").exists()
        return
    Path("points.npz").touch()
    assert call(*RUN)[0] == 0
    Path("points.npz").unlink()
    before = everything(Path("outputs"))
    for verb, words in VERBS.items():
        code, line = call(*words)
        assert (code, "points.npz" in line) == ((0, False) if (verb, where) == ("export", "load") else (2, True)), line
    assert everything(Path("outputs")) == before


@pytest.mark.parametrize("verb", VERBS)
def test_another_word_for_code_is_refused(verb, call):
    code, line = call(*VERBS[verb], "code=foo")
    assert code == 2 and "code=foo: choose one of: same, any" in line
    assert call("reproduce", "chnode_2022/table1", "code=foo") == (2, "robode: code=foo: choose one of: same, any")


@pytest.mark.slow
def test_refusals_need_no_torch(package, call, run):
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    each = [[*VERBS["evaluate"], "code=foo"], *map(list, VERBS.values())]
    ask = f"import sys; from robode.cli.main import main; print(*map(main, {each!r}), 'torch' in sys.modules)"
    place = {"PYTHONPATH": f"{Path(robode.__file__).parents[1]}:{package.parent}", "ROBODE_TRUST": "theirs"}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=place)
    assert done.stdout.split() == ["2"] * len(each) + ["False"], done.stderr


def python(source: Path, text: str) -> str:
    """What a new Python prints that finds robode in `source`."""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env={"PYTHONPATH": str(source)})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path) -> Path:
    """The folder of a copy of robode."""
    return Path(shutil.copytree(Path(robode.__file__).parent, tmp_path / "src" / "robode"))


@pytest.mark.slow
def test_what_makes_the_weights_counts_and_what_draws_does_not(copied, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model": {"_target_": "robode.families.chnode.CHNode"},
                "suite": {"pgd": {"_target_": "robode.attacks.pgd.PGD"}},
                "protocol": {"_target_": "robode.corruptions.protocols.DataSpace"},
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
        kept = {copied / name: (copied / name).read_text() for name in names}
        for path, content in kept.items():
            path.write_text(content + text)
        after = python(copied.parent, ask).split()
        for path, content in kept.items():
            path.write_text(content)
        return [a != b for a, b in zip(before, after, strict=True)]

    before = python(copied.parent, ask).split()
    line = "\nEDITED = 1\n"
    (encoder,) = [path for path in copied.glob("*.py") if "class Conv(" in path.read_text()]
    assert changed(line, encoder.name) == [True, True, True]
    assert changed(line, "families/hamiltonian.py") == [True, True, True], "a base class"
    assert changed(line, "training/module.py") == [True, False, False]
    assert changed(line, "evaluation/measure.py") == [False, True, True]
    assert changed(line, "attacks/pgd.py") == [False, True, False]
    machinery = ("report/page.py", "papers/collect.py", "cli/main.py", "config/config.py")
    silent = (*machinery, "masking/verdict.py", "families/resnet.py")
    assert changed(line, *silent) == [False] * 3
    assert (
        changed('\n"""A sentence."""\n# another\n', encoder.name, "training/module.py", "evaluation/measure.py")
        == [False] * 3
    )


@pytest.mark.slow
def test_a_file_that_git_does_not_know_makes_a_checkout_dirty(copied):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", copied.parent, *words], check=True, capture_output=True)

    git("init", "-q")
    (copied.parent / ".gitignore").write_text("__pycache__/\nignored.py\n")
    git("add", "-A")
    git("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "all")
    ask = "from robode.runs.origin import git_state; print(git_state()['dirty'])"
    (copied / "ignored.py").touch()
    assert python(copied.parent, ask) == "False"
    (copied / "families" / "mine.py").write_text("new = 1\n")
    assert python(copied.parent, ask) == "True"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_sweep_of_evaluations_marks_what_other_code_trained_and_what_was_there_already(package, call, run):
    words = ("evaluate", "-m", "run=B", "limit=20", "verdicts=0,1", "suite=clean", "code=any")
    edit(package / "family.py", "gain = 1.0", "gain = 2.0")
    code, line = call(*words)
    assert code == 0 and line.count("done†") == 1 and "trained by other code than this" in line, line
    assert "1 reused" in line
