"""Train once, measure much: what is known is not measured again, and what is missing is appended copy by copy."""

import functools
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small_runs import composed, train

from robode.api.evaluation import run_evaluation
from robode.errors import BadInput, JobFailed
from robode.evaluation.copies import Copies
from robode.evaluation.measure import held
from robode.files import read_json, write_json
from robode.network import build_network
from robode.runs import lock, results
from robode.runs.checkpoints import load_weights
from robode.runs.results import Store
from robode.runs.run import Run
from robode.runs.scores import read_scores, scores_path, write_scores
from robode.tasks.measure import CLASSIFICATION
from robode.tasks.regression import Regression
from robode.training.assembly import build_data


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with the clean row only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        return train("epochs=1", "run=small").folder.resolve()


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Run:
    for name in ("draw_figures", "write_page"):
        monkeypatch.setattr(f"robode.api.evaluation.{name}", lambda folder: [])
    return Run(Path(shutil.copytree(trained, tmp_path / "small")))


@functools.cache
def usual(*words: str):
    return composed("run=RUN", "suite=[noise,clean]", "repeats=3", *words, verb="evaluate")


def evaluate(run: Run, *words: str):
    """What `robode evaluate run=…` does with these words; composing a configuration takes longer than evaluating."""
    return run_evaluation(replace(usual(*words), run=str(run.folder))).rows


def answers(rows) -> dict:
    return {results.identity(row): row["score"] for row in rows}


def stored(run: Run) -> list[dict]:
    return results.read_rows(run.folder / "results.csv").to_dict("records")


def lines(run: Run) -> int:
    return (run.folder / "results.csv").read_text().count("\n") - 1


@pytest.mark.slow
def test_a_second_evaluation_computes_nothing_and_says_so(run, monkeypatch, capsys):
    first = evaluate(run)
    before = (run.folder / "results.csv").read_bytes()
    monkeypatch.setattr(Copies, "measure", None)
    capsys.readouterr()
    assert answers(evaluate(run)) == answers(first)
    assert (run.folder / "results.csv").read_bytes() == before
    assert "nothing to evaluate: results.csv has what was asked for (7 rows)\n" in capsys.readouterr().out


@pytest.mark.slow
def test_an_evaluation_in_pieces_is_the_evaluation_at_once(run, tmp_path, capsys):
    other = Run(Path(shutil.copytree(run.folder, tmp_path / "again" / "small")))
    whole = evaluate(run, "suite.gaussian.var=[0.05,0.1,0.2]")
    for words in (["repeats=1", "suite.gaussian.var=0.1"], ["suite.gaussian.var=0.2"]):
        evaluate(other, *words)
    pieces = evaluate(other, "suite.gaussian.var=[0.05,0.1,0.2]")
    assert "evaluation: results.csv has 5 of 10 rows" in capsys.readouterr().out
    assert list(answers(pieces).items()) == list(answers(whole).items()) and len(whole) == 10
    assert lines(other) == lines(run) == 10, "each row is computed once; the clean one was there"
    assert all((read_scores(run.folder, a) == read_scores(other.folder, a)).all() for a in whole)
    assert len({row["evaluation"] for row in whole}) == 2


@pytest.mark.parametrize("copies", [0, 2])
def test_an_interruption_costs_one_copy_at_most(run, copies, monkeypatch):
    count = Copies.measure

    def interrupted(self, tally, repeat, *rest):
        if repeat == copies:
            raise KeyboardInterrupt
        return count(self, tally, repeat, *rest)

    monkeypatch.setattr(Copies, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    assert lines(run) == 1 + 2 * copies
    monkeypatch.setattr(Copies, "measure", count)
    draft = run.folder / "scores" / ".half.npy.1234"  # what a kill in mid-write leaves
    draft.touch()
    rows = evaluate(run)
    assert lines(run) == len(answers(rows)) == 7 and not draft.exists()


def test_an_interrupted_training_is_named_before_its_numbers(run, capsys):
    evaluate(run)
    assert "may not be final" not in capsys.readouterr().out
    run.update(status="interrupted", trained=False, step=7, epoch=3)
    evaluate(run)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "run small is interrupted at step 7, epoch 3: the numbers may not be final"


def test_the_bits_say_which_samples_are_right(run):
    evaluate(run)
    config = run.config()
    data = build_data(config)
    network = build_network(config, data.info)
    load_weights(run.best, network)
    x, labels = data.split("test")
    with torch.no_grad():
        right = (network.eval()(x).argmax(1) == labels).numpy()
    rows = stored(run)
    (clean,) = (row for row in rows if row["perturbation"] == "clean")
    assert (read_scores(run.folder, clean) == right).all()
    noisy = [read_scores(run.folder, row) for row in rows if row["severity"] == 0.2]
    assert len(noisy) == 3 and all(each.shape == right.shape and (each != right).any() for each in noisy)
    assert len(list((run.folder / "scores").iterdir())) == len(rows)


@pytest.mark.slow
def test_bits_that_are_lost_are_found_out_and_a_row_without_its_file_is_measured_again(run):
    row = evaluate(run, "repeats=1")[0]
    path = scores_path(run.folder, row)
    for damage in (lambda: path.write_bytes(b""), lambda: path.write_bytes(b"half"), path.unlink):
        damage()
        with pytest.raises(JobFailed, match=r"cannot read .*\.npy: .*remove it and evaluate again$"):
            read_scores(run.folder, row)
    evaluate(run, "repeats=1")
    assert read_scores(run.folder, row).mean() == row["score"]


def test_bits_of_another_row_are_refused(tmp_path):
    row = {"evaluation": "e", "weights": "w", "split": "test", "noise_seed": 0, "severity": 0.05, "repeat": 0}
    row["task"] = str(CLASSIFICATION)
    write_scores(tmp_path, row, np.array([True] * 9 + [False]))
    assert read_scores(tmp_path, row | {"n": 10, "score": 0.9}).tolist() == [True] * 9 + [False]
    for other in ({"n": 10, "score": 0.8}, {"n": 17, "score": 9 / 17}, {"n": 8, "score": 1.0}):
        with pytest.raises(JobFailed, match="does not say the same"):
            read_scores(tmp_path, row | other)


@pytest.mark.slow
def test_bits_of_an_earlier_version_are_read_where_they_lie(run):
    first = evaluate(run)
    (run.folder / "scores").rename(run.folder / "correct")
    before = {row["severity"]: read_scores(run.folder, row).tolist() for row in first if row["repeat"] == 0}
    assert answers(evaluate(run)) == answers(first) and not (run.folder / "scores").exists(), (
        "nothing is measured again"
    )
    write_scores(run.folder, first[0], 1 - np.array(before[first[0]["severity"]]))
    assert scores_path(run.folder, first[0]).parent.name == "scores", "what is written anew counts"


def test_errors_are_kept_as_they_are_and_bits_eight_a_byte(tmp_path):
    row = {"evaluation": "e", "weights": "w", "split": "test", "noise_seed": 0, "severity": 0.05, "repeat": 0, "n": 3}
    errors = np.array([0.5, np.inf, 1e-3], dtype=np.float32)
    write_scores(tmp_path, row | {"task": str(Regression(1).measure)}, errors)
    assert (read_scores(tmp_path, row | {"score": np.inf}) == errors).all()
    with pytest.raises(JobFailed, match="does not say the same"):
        read_scores(tmp_path, row | {"score": 0.5})
    with pytest.raises(ValueError, match="0 or 1"):
        write_scores(tmp_path, row | {"task": str(CLASSIFICATION)}, errors)
    assert np.load(scores_path(tmp_path, row)).dtype == np.float32


def test_two_severities_never_share_a_file(tmp_path):
    row = {"evaluation": "e", "weights": "w", "split": "test", "noise_seed": 0, "repeat": 0}
    levels = (0.0, 1e-7, 0.05, 0.05000001, 0.1234567, 0.12345678, 1.0)
    names = [scores_path(tmp_path, row | {"severity": level}).name for level in levels]
    assert len(set(names)) == len(levels) and names[2] == "e-w-test-n0-0.05-r0.npy"


@pytest.mark.slow
def test_other_splits_have_rows_of_their_own_and_leave_the_pictures_alone(run):
    evaluate(run)
    pictures = (run.folder / "samples.npz").read_bytes()
    sizes = {split: evaluate(run, f"split={split}")[0]["n"] for split in ("train", "validation", "test")}
    data = build_data(run.config())
    assert sizes == {split: len(data.split(split).target) for split in sizes}
    assert {row["split"] for row in stored(run)} == set(sizes) and lines(run) == 21
    assert (run.folder / "samples.npz").read_bytes() == pictures


@pytest.mark.slow
def test_the_pictures_of_one_suite_stay_when_another_is_measured(run):
    evaluate(run)
    shown = "suite=[clean,attacks_quick]", "verdicts=0"
    noisy, attacked = pictures(run), evaluate(run, *shown) and pictures(run)
    assert set(noisy) < set(attacked) and any(name.startswith("pgd") for name in attacked)
    for name, (x, said) in noisy.items():
        assert np.array_equal(attacked[name][0], x) and np.array_equal(attacked[name][1], said)
    evaluate(run, *shown, "seed=5")
    assert not set(noisy) & set(pictures(run)) - {"clean"}, "of other noise none stays"


def test_damaged_pictures_are_drawn_anew(run):
    (run.folder / "samples.npz").write_bytes(b"PK half a zip")
    evaluate(run)
    assert "clean" in pictures(run)


def pictures(run) -> dict:
    with np.load(run.folder / "samples.npz") as file:
        return {
            str(name): (x, said) for name, x, said in zip(file["names"], file["x"], file["predictions"], strict=True)
        }


def test_a_split_that_the_data_lack_is_bad_input_and_nothing_is_written(run, monkeypatch):
    config = run.config()
    config = replace(config, data=replace(config.data, validation=0))
    run.save_config(config)
    record = run.folder / "environment.json"
    write_json(record, read_json(record) | {"data_digest": build_data(config).digest})
    before = sorted(path.name for path in run.folder.iterdir())
    with pytest.raises(BadInput, match="no validation split"):
        evaluate(run, "split=validation")
    assert sorted(path.name for path in run.folder.iterdir()) == before


@pytest.mark.slow
def test_equal_weights_under_another_name_are_copied_and_the_last_weights_of_a_name_are_shown(run, monkeypatch):
    def shown():
        return results.newest(results.read_rows(run.folder / "results.csv"))

    evaluate(run)
    original = run.best.read_bytes()
    content = torch.load(run.best, weights_only=True)
    key = next(name for name in content["state_dict"] if name.endswith("head.bias"))
    content["state_dict"][key] += 1.0
    torch.save(content, run.best)
    (new,) = {row["weights"] for row in evaluate(run)}
    assert set(shown()["weights"]) == {new}

    monkeypatch.setattr(Copies, "measure", None)  # from here on everything is known
    shutil.copyfile(run.best, run.last)
    named = evaluate(run, "checkpoint=last")
    assert {row["checkpoint"] for row in named} == {"last"}
    assert shown().groupby("checkpoint").size().to_dict() == {"best": 7, "last": 7}
    size = lines(run)
    evaluate(run, "checkpoint=last")
    evaluate(run)
    assert lines(run) == size

    run.best.write_bytes(original)
    (old,) = {row["weights"] for row in evaluate(run)}
    assert set(shown().query("checkpoint == 'best'")["weights"]) == {old} != {new}


def test_results_of_another_version_are_refused_before_anything_is_measured(run, monkeypatch):
    path = run.folder / "results.csv"
    path.write_text(path.read_text().replace("evaluation,", "", 1))
    monkeypatch.setattr(Copies, "measure", None)
    with pytest.raises(BadInput, match="other columns than this version"):
        evaluate(run)


def test_a_process_that_comes_second_waits_says_so_and_finds_the_rows(run, monkeypatch, capsys):
    first = evaluate(run)
    shutil.rmtree(run.folder / "scores")  # as before the other process has done it
    kept = (run.folder / "results.csv").read_bytes()
    (run.folder / "results.csv").unlink()
    monkeypatch.setattr(Copies, "measure", None)
    monkeypatch.setattr(lock, "POLL", 0.01)
    waiting, found = threading.Event(), []

    def second():
        with lock.held(run.folder / ".evaluation.lock", waiting.set):
            found.extend(row for row in Store(run.folder).rows(first))

    with lock.held(run.folder / ".evaluation.lock", lambda: pytest.fail("nobody else has it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10) and thread.is_alive() and not found
        (run.folder / "results.csv").write_bytes(kept)
    thread.join(10)
    assert answers(found) == answers(first)


def test_whoever_waits_for_an_evaluation_says_so_once(run, monkeypatch, capsys):
    monkeypatch.setattr(lock, "POLL", 0.01)
    entered = threading.Event()

    def second():
        with held(run, Console(width=200)):
            entered.set()

    with lock.held(run.folder / ".evaluation.lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set() and capsys.readouterr().out.count("waiting for the process that evaluates") == 1
