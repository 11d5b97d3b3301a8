"""One self-contained HTML page per run, made from the files in the run folder."""

import json
import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from robode.errors import BadInput, JobFailed
from robode.report import tables
from robode.report.layout import Plain
from robode.report.masking_section import Section, masking_section
from robode.report.style import picture, without_places, write_html
from robode.runs import results
from robode.runs.origin import ANY, OTHER_CODE, check_code
from robode.runs.run import Run, plain_of
from robode.runs.table import METRICS
from robode.tasks.measure import Measure

# stem of a figure → its title and what to read off it; the page keeps this order. {score}: what the task calls its
# score, {Score}: at the beginning of a sentence
_CAPTIONS = {
    "{score}_against_noise": (
        "{Score} against noise",
        "Mean over noisy copies with 95 % intervals; level 0 is the same samples without noise.",
    ),
    "{score}_against_attacks": (
        "{Score} against attacks",
        "{Score} under each attack over its size, with 95 % intervals; eps 0 is the same samples as they are. Dashed: "
        "what is certified, which no attack can {pass}. Dotted: certified with a probability, of the smoothed network.",
    ),
    "early_stopping": (
        "Inference stopped early",
        "Accuracy and mean cross-entropy of test images where the head reads the state at time t, and the evaluations "
        "of the field (layers, where they solve no ODE) that it took.",
    ),
    "noise_grid": (
        "Samples",
        "What the network sees and says, clean and under noise. ✗ marks a wrong prediction.",
    ),
    "training_curves": (
        "Training",
        "Values over epochs; of train the mean over the steps between two records, in their middle. The bounds of the "
        "ODE and of the network are different claims.",
    ),
    "log_norms": (
        "Logarithmic norm",
        "δ of the ODE after each epoch, over all slopes of the activation and the largest over the layers: it lies in "
        "the band between what some slopes attain and what is proved. Two solutions separate by e^(δT) at most; where "
        "δ < 0 they approach each other. About the ODE, not about the steps that run. Dotted: δ̄, to which the weights "
        "are moved back (stable_node).",
    ),
    "bsm_norms": (
        "Backward sensitivity",
        "Norms per layer: solid the median sample, dashed the largest, dotted the norm of the mean Jacobian. "
        "A norm of at most 1 means that gradients do not explode there.",
    ),
    "{score}_by_epoch": (
        "Robustness by epoch",
        "{Score} after each epoch, for each noise level; bands are 95 % intervals.",
    ),
}
_CERTIFICATES = {
    "flow_ode": {
        "title": "Certificate of the ODE",
        "covers": "Covers the differential equation: over [0, T] two of its solutions move apart by at "
        "most this factor (for chnode: Theorems 1 and 2). Says nothing about the discrete network.",
    },
    "flow_discrete": {
        "title": "Certificate of the network's flow",
        "covers": "Covers the network that runs: product of certified one-step bounds of its integrator "
        "steps. Encoder and head are not included.",
    },
    "end_to_end": {
        "title": "Certificate of the whole network",
        "covers": "Covers inputs to outputs, in data units: encoder, flow and head of the network that runs. No two "
        "inputs' outputs differ by more than this times the distance of the inputs (2-norm).",
    },
}


def write_page(folder: Path | str) -> Path:
    """Write folder/report.html and return its path.

    Reads config.yaml, environment.json, status.json, results.csv, metrics.csv, masking.json and figures/*.png; a file
    that is missing leaves its section out, one that cannot be read is named in the page's warnings.

    Raises:
        JobFailed: the page cannot be written.
    """
    folder = Path(folder)
    warnings: list[str] = []
    config = _mapping(folder / "config.yaml", plain_of, warnings)
    status = _mapping(folder / "status.json", json.loads, warnings)
    environment = _mapping(folder / "environment.json", json.loads, warnings)
    summary = _frame(folder / "results.csv", _newest_summary, warnings)
    metrics = _frame(folder / "metrics.csv", METRICS.read, warnings)
    about = _about(config, summary)
    evaluation = _evaluation(summary, about.pop("protocol", ""))
    measure = tables.measure_of(evaluation if len(evaluation) else summary)
    masking = _masking(folder / "masking.json", evaluation, warnings)
    recorded = status.get("warnings")
    warnings = [str(line) for line in recorded] + warnings if isinstance(recorded, list) else warnings
    warnings = [without_places(line) for line in [*other_code(folder, summary), *warnings]]
    status = {name: without_places(each) if isinstance(each, str) else each for name, each in status.items()}
    return write_html(
        folder / "report.html",
        "page.html.j2",
        run=folder.resolve().name,
        about=about,
        status=status,
        warnings=warnings,
        headline=_headline(evaluation),
        certificates=_certificates(evaluation, metrics),
        masking=masking,
        figures=_figures(folder / "figures", measure),
        table=_table(summary),
        words=_words(measure),
        config_text=without_places(yaml.safe_dump(config, sort_keys=False, allow_unicode=True)) if config else "",
        environment={name: without_places(text) for name, text in _flat(environment).items()},
        command=_command(environment),
    )


def other_code(folder: Path, summary: pd.DataFrame | None = None) -> list[str]:
    """One line with † for each way in which a run's page shows what other code than today's has made: its weights, or
    rows. summary: of its results.csv, where that is known."""
    lines: list[str] = []
    run = Run(folder)
    with suppress(BadInput, JobFailed, ValueError):  # a file that is damaged has a line of its own
        if run.exists and (line := check_code(run, ANY)):
            lines.append(line)
        rows = _newest_summary(folder / "results.csv") if summary is None else summary
        if count := int(_others(rows).sum()):
            lines.append(f"{OTHER_CODE} {count} of {len(rows)} measurements were made by other code than this")
    return lines


def _others(rows: pd.DataFrame) -> pd.Series:
    """Which rows other code than today's has measured, as far as that is known."""
    return rows["other_code"].astype(bool) if "other_code" in rows else pd.Series(False, index=rows.index)


def _mapping(path: Path, parse: Callable[[str], Plain], warnings: list[str]) -> Plain:
    """The file's mapping; {} when it is missing, and a warning when it is damaged."""
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (BadInput, OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        warnings.append(f"{path.name} could not be read; its section is left out")
        return {}
    return content


def _newest_summary(path: Path) -> pd.DataFrame:
    return results.summarise(results.current(path))


def _frame(path: Path, read: Callable[[Path], pd.DataFrame], warnings: list[str]) -> pd.DataFrame:
    try:
        return read(path)
    except (BadInput, JobFailed, ValueError):
        warnings.append(f"{path.name} could not be read; its section is left out")
        return read(path.with_name("no such file"))


def _masking(path: Path, rows: pd.DataFrame, warnings: list[str]) -> Section:
    """The checks of the network whose evaluation the page shows."""
    content = _mapping(path, json.loads, warnings)
    try:
        return masking_section(content, str(rows["weights"].iloc[-1]) if len(rows) else None)
    except ValueError:
        warnings.append(f"{path.name} could not be read; its section is left out")
        return Section()


def _about(config: Plain, summary: pd.DataFrame) -> dict[str, str]:
    """model, data, depth, seed, integrator, parameter count and protocol, from the config or the rows."""
    about: dict[str, str] = {}
    for name in ("model", "data", "depth", "seed", "integrator", "params", "protocol"):
        value = config.get(name)
        if isinstance(value, Mapping):
            value = value.get("name")
        if value is None and len(summary):
            value = summary[name].dropna().get(summary.index[-1])
        if value not in (None, ""):
            about[name] = str(value)
    return about


def _evaluation(summary: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Rows of one evaluation: the last, but rather on the test split, by the run's protocol and with its own noise."""
    rows = summary
    own_noise = (rows["noise_seed"] == rows["seed"]).fillna(False)
    for wanted in (rows["split"] == "test", rows["protocol"] == protocol, own_noise):
        better = rows[wanted.reindex(rows.index)]
        rows = better if len(better) else rows
    about = rows[list(tables.EVALUATION)].astype(str)
    return rows[(about == about.iloc[-1]).all(axis=1)] if len(rows) else rows


@dataclass(frozen=True)
class Line:
    """A row of results.csv (its copies together) as the page shows it; bar, low and high: percentages of a bar."""

    name: str
    level: str
    score: str
    interval: str
    bar: float
    low: float
    high: float
    n: int
    repeats: int
    reference: str
    differs: bool
    measured: Mapping[str, str]  # the columns that may tell it from other evaluations


@dataclass(frozen=True)
class Headline:
    """Clean score, noisy scores and what they were measured on, all on the same samples: as many as there are.

    others: whether noisy scores are left out, because they are of more or fewer samples.
    """

    clean: Line | None
    noisy: tuple[Line, ...]
    others: bool
    checkpoint: str
    split: str
    protocol: str


@dataclass(frozen=True)
class Results:
    """Every measurement, with a column for what varies between evaluations, and one for the reference solver if any.

    reference: what that column means; "" leaves it out.
    """

    varying: tuple[str, ...]
    rows: tuple[Line, ...]
    reference: str


def _headline(rows: pd.DataFrame) -> Headline | None:
    if rows.empty:
        return None
    clean_rows = rows[rows["perturbation"] == "clean"]
    perturbed = (rows["perturbation"] != "clean").sum()
    rows = rows[rows["n"] == (clean_rows if len(clean_rows) else rows)["n"].max()]
    whole = rows[rows["perturbation"] == "clean"]
    full = 1.0 if tables.measure_of(rows).shares else _largest(rows)
    clean = [_line(row, full) for _, row in whole.iterrows()]
    noisy = tuple(_line(row, full) for _, row in rows[rows["perturbation"] != "clean"].iterrows())
    last = rows.iloc[-1]
    where = (str(last[name]) for name in ("checkpoint", "split", "protocol"))
    return Headline(clean[-1] if clean else None, noisy, len(noisy) < perturbed, *where)


def _largest(rows: pd.DataFrame) -> float:
    """What fills a bar: the largest end of an interval that is finite."""
    ends = rows[["score", "score_high"]].to_numpy(float)
    return float(max(ends[np.isfinite(ends)], default=1.0)) or 1.0


def _line(row: pd.Series, full: float = 1.0) -> Line:
    """A summary row; `full` fills a bar."""
    bar, low, high = (100 * min(max(row[name] / full, 0.0), 1.0) for name in ("score", "score_low", "score_high"))
    return Line(
        name=str(row["perturbation"]).replace("_", " ") + f" {OTHER_CODE}" * bool(row.get("other_code", False)),
        level=tables.level(row),
        score=tables.score(row),
        interval=tables.interval(row),
        bar=bar,
        low=low,
        high=high,
        n=row["n"],
        repeats=row["repeats"],
        reference=tables.reference(row),
        differs=tables.differs(row),
        measured={name: str(row[name]) for name in (*tables.EVALUATION, "evaluation")},
    )


def _table(summary: pd.DataFrame) -> Results:
    rows = tuple(_line(row) for _, row in summary.iterrows())
    about = tables.REFERENCE if tables.has_reference(summary) else ""
    return Results(tuple(tables.varying(summary)), rows, about)


def _certificates(rows: pd.DataFrame, metrics: pd.DataFrame) -> list[dict[str, str]]:
    """The constants of the evaluated checkpoint, or else those of the flow that were logged last in training."""
    values = {}
    mark = f" {OTHER_CODE}" * bool(_others(rows).any())
    for name in _CERTIFICATES:
        logged = metrics[metrics["name"].str.rsplit("/").str[-1] == name]["value"]
        known = (rows[name] if len(rows) else logged).dropna()
        values[name] = float(known.iloc[-1]) if len(known) else math.nan
    if all(math.isnan(value) for value in values.values()):
        return []
    return [
        {"name": name, "bound": tables.bound(value) + mark, "verdict": tables.verdict(value), **_CERTIFICATES[name]}
        for name, value in values.items()
        if name != "end_to_end" or not math.isnan(value)  # rows of earlier versions have none
    ]


def _words(measure: Measure) -> dict[str, str]:
    """What the page calls a score, with its unit and without, what an interval of it is, and how often it was taken."""
    interval = (
        "The interval is Wilson's at the number of distinct samples"
        if measure.shares
        else "The interval is Student's over the distinct samples"
    )
    return {"score": measure.score_name, "label": measure.label, "interval": interval, "better": measure.better}


def _figures(folder: Path, measure: Measure) -> list[dict[str, str]]:
    """Every PNG of the folder as a data URI, the known ones first and with their caption."""
    words = {"score": measure.score_name, "Score": measure.score_name.capitalize()}
    words["pass"] = "go below" if measure.better == "higher" else "go above"
    known = {stem.format(**words): tuple(text.format(**words) for text in texts) for stem, texts in _CAPTIONS.items()}
    paths = {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    order = [stem for stem in known if stem in paths] + [stem for stem in paths if stem not in known]
    return [picture(paths[stem], *known.get(stem, (stem.replace("_", " "), ""))) for stem in order]


def _flat(nested: Plain, prefix: str = "") -> dict[str, str]:
    """{"versions": {"torch": "2.14"}} → {"versions.torch": "2.14"}."""
    flat: dict[str, str] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _command(environment: Plain) -> str:
    """The command line that started the run; a resumed run keeps it under earlier.1."""
    earlier = environment.get("earlier")
    first = earlier.get("1", environment) if isinstance(earlier, Mapping) else environment
    argv = first.get("argv") if isinstance(first, Mapping) else None
    return shlex.join(map(str, argv)) if isinstance(argv, list) else ""
