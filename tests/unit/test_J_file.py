"""A J of one's own: the run keeps a copy, because the file may move or change."""

import numpy as np
import pytest
import torch
from small_runs import composed, train

from robode.api.evaluation import run_evaluation
from robode.errors import BadInput
from robode.runs.checkpoints import read_checkpoint


@pytest.fixture
def J(tmp_path, monkeypatch) -> np.ndarray:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    upper = np.triu(np.random.default_rng(0).normal(size=(4, 4)), 1)
    return upper - upper.T


def test_a_run_outlives_its_J_file(J, tmp_path):
    np.save("mine.npy", J)
    run = train("epochs=1", "model.J=file", "model.J_file=mine.npy")
    saved = read_checkpoint(run.last)["state_dict"]["network.flow.skew.J"]
    assert torch.equal(saved, torch.as_tensor(J))
    (tmp_path / "mine.npy").unlink()
    result = run_evaluation(composed(f"run={run.folder}", "suite=clean", verb="evaluate"))
    assert result.score > 0


def test_a_copy_that_a_kill_cut_short_is_made_again(J, tmp_path):
    np.save("mine.npy", J)
    folder = tmp_path / "outputs" / "default" / "cut"
    folder.mkdir(parents=True)
    whole = (tmp_path / "mine.npy").read_bytes()
    (folder / "J.npy").write_bytes(whole[:-9])  # and config.yaml, which comes last, is missing
    run = train("epochs=1", "model.J=file", "model.J_file=mine.npy", "run=cut")
    assert run.folder.samefile(folder) and np.array_equal(np.load(run.folder / "J.npy"), J)


def test_another_J_than_the_one_trained_with_is_refused(J):
    np.save("mine.npy", J)
    run = train("epochs=1", "model.J=file", "model.J_file=mine.npy")
    np.save(run.folder / "J.npy", 2 * J)
    with pytest.raises(BadInput, match="J is not the one"):
        run_evaluation(composed(f"run={run.folder}", "suite=clean", verb="evaluate"))
