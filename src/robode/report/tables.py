"""Results as text for the terminal, and the wording that the terminal and the page share."""

import math
from collections.abc import Iterable

import pandas as pd
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robode.tasks.measure import CLASSIFICATION, Measure, measure_named

# what tells one evaluation of a run from another
EVALUATION = ("checkpoint", "weights", "split", "protocol", "noise_seed")
REFERENCE = (
    "Reference solver: the score on the same samples, adversarial or clean, when the ODE is solved more finely. Where "
    "the two are further apart than half the interval (≠), the score or the attack belongs to the solver, not to "
    "the ODE."
)


def varying(summary: pd.DataFrame, names: Iterable[str] = EVALUATION) -> list[str]:
    """Those of the columns that must be shown to tell evaluations apart; weights only where the checkpoint does not.

    Also `evaluation`, but only where a perturbation of the same name was set up in several ways: each perturbation
    has a hash of its own.
    """
    names = list(names)
    found = [name for name in names if summary[name].nunique(dropna=False) > 1]
    if "weights" in found and summary.groupby(["run", "checkpoint"], dropna=False)["weights"].nunique().max() == 1:
        found.remove("weights")
    named = ["run", *(name for name in names if name != "run"), "perturbation", "norm", "severity_unit", "space"]
    if summary.groupby(named, dropna=False)["evaluation"].nunique().max() > 1:
        found.append("evaluation")
    return found


def told_apart(row: pd.Series, names: Iterable[str]) -> str:
    """What the columns that vary say of one row: "r1 · n = 200"."""
    return " · ".join(f"n = {row[name]}" if name == "n" else str(row[name]) for name in names)


def measure_of(rows: pd.DataFrame) -> Measure:
    """How the scores of these rows read; they are of one task."""
    return measure_named(rows["task"].iloc[-1]) if len(rows) else CLASSIFICATION


def score(row: pd.Series) -> str:
    """Of a summary row: "96.4 %", or an error as it is."""
    return measure_named(row["task"]).text(row["score"])


def interval(row: pd.Series) -> str:
    """Of a summary row: "[95.1, 97.3]" (percent), or the ends as they are."""
    return measure_named(row["task"]).interval(row["score_low"], row["score_high"])


def level(row: pd.Series) -> str:
    """The noise level of a summary row with its unit: "variance 0.05"; "–" where there is none."""
    if row["severity_unit"] in ("", "none"):
        return "–"
    unit = str(row["severity_unit"]).replace("_", " ")
    space = " (normalised)" if row["space"] == "normalised" else ""
    return f"{unit} {row['severity']:g}".strip() + space


def has_reference(summary: pd.DataFrame) -> bool:
    """Whether a row was scored a second time with the reference solver: without, the column of it is left out."""
    return bool(summary["score_reference"].notna().any())


def differs(row: pd.Series) -> bool:
    """Whether the reference solver changes the score of a summary row by more than half the width of its interval."""
    gap = abs(row["score_reference"] - row["score"])
    return bool(gap > (row["score_high"] - row["score_low"]) / 2)  # NaN is no difference


def reference(row: pd.Series) -> str:
    """The score of a summary row with the reference solver: "45.0 %", "≠ 45.0 %" where it `differs`, "–" without."""
    return f"{'≠ ' if differs(row) else ''}{measure_named(row['task']).text(row['score_reference'])}"


def bound(value: float) -> str:
    """A certified Lipschitz bound in four digits, "none" where nothing is certified."""
    return f"{value:.4g}" if math.isfinite(value) else "none"


def verdict(value: float) -> str:
    """What a Lipschitz bound says about distances, in three words."""
    if not math.isfinite(value):
        return "no certificate"
    return "never expands" if value <= 1.0 else "may expand"


def certificates_line(flow_ode: float, flow_discrete: float) -> str:
    """One line for the terminal; the two bounds are different claims and are never merged."""
    return (
        f"certified Lipschitz bound: ODE (flow_ode) {bound(flow_ode)}, {verdict(flow_ode)}"
        f" | network that runs (flow_discrete) {bound(flow_discrete)}, {verdict(flow_discrete)}"
    )


def results_table(summary: pd.DataFrame, title: str | None = None) -> Table:
    """One line per perturbation and level: mean score over repeats, interval, reference solver, samples, repeats.

    summary: records.summarise(rows). What tells evaluations apart gets a column where it varies.
    """
    shown, twice = varying(summary), has_reference(summary)
    table = Table(title=title, title_justify="left", header_style="bold", caption_justify="left")
    table.caption = REFERENCE if twice else None
    for name in shown:
        table.add_column(name)
    table.add_column("perturbation")
    table.add_column("level")
    names = dict.fromkeys(measure_named(text).label for text in summary["task"])
    for name in (" / ".join(names), "95 % interval", *(["reference solver"] if twice else []), "samples", "repeats"):
        table.add_column(name, justify="right")
    for _, row in summary.iterrows():
        table.add_row(
            *(escape(str(row[name])) for name in shown),
            escape(str(row["perturbation"]).replace("_", " ")),
            escape(level(row)),
            score(row),
            interval(row),
            *([Text(reference(row), style="bold yellow" if differs(row) else "")] if twice else []),
            str(row["n"]),
            str(row["repeats"]),
        )
    return table
