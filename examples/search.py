"""Settings chosen by the score on validation data, with Optuna: python examples/search.py [chnode|stable_node] [trials]

kappa and h of a CH-NODE, or the bound delta of a stabilised NODE. A trial is a run of robode: one that was done before
costs nothing, and `robode report` shows it. Started in several terminals the command shares its trials, by the database
outputs/search.db. Needs `pip install optuna`.
"""

import sys
from pathlib import Path

import optuna

from robode.api import train
from robode.report.values import validation_score
from robode.tasks.measure import measure_named

COMMON = {"data": "double_moons", "data.validation": 0.25, "data.limit_train": 400, "experiment": "smoke", "epochs": 5,
          "depth": 4, "suite": "clean", "callbacks": "none"}  # fmt: skip


def settings(trial: optuna.Trial, model: str) -> dict[str, float]:
    """What this trial tries."""
    if model == "stable_node":
        return {"model.delta": trial.suggest_float("model.delta", -2.0, 2.0, step=0.25)}
    return {"model.kappa": round(trial.suggest_float("model.kappa", 0.01, 10.0, log=True), 4),
            "step": round(trial.suggest_float("step", 0.01, 1.0, log=True), 4)}  # fmt: skip


def score(trial: optuna.Trial, model: str) -> float:
    """The share of the validation data that is right. The test set is not asked."""
    trained = train(model=model, **COMMON, **settings(trial, model))
    trial.set_user_attr("run", str(trained.run))
    return validation_score(Path(trained.run), measure_named(trained.task))


if __name__ == "__main__":
    model, trials = (sys.argv[1:] + ["chnode", "10"][len(sys.argv) - 1 :])[:2]
    Path("outputs").mkdir(exist_ok=True)
    sampler = optuna.samplers.TPESampler(n_startup_trials=5)
    study = optuna.create_study(
        storage="sqlite:///outputs/search.db",
        study_name=model,
        direction="maximize",
        sampler=sampler,
        load_if_exists=True,
    )
    study.optimize(lambda trial: score(trial, model), n_trials=int(trials))
    best = study.best_trial
    print(f"best by validation: {best.value:.1%}, {best.params}, {best.user_attrs['run']}")
