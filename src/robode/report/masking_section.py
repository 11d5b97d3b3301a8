"""The section of a run's page on gradient masking, from masking.json: its checks and verdicts."""

from collections.abc import Mapping
from typing import Any

from robode.masking.file import PASSES, Row, in_todays_words
from robode.tasks.measure import percent

# checks as people read them; one that is not here is shown by its own name
_TITLES = {
    "zero_gradients": "Vanishing gradients",
    "random_gradients": "Random gradients",
    "saturation": "Saturated cross-entropy",
    "ordering": "Noise, FGSM, PGD in order",
    "black_box": "Black box against white box",
    "smoothed_gradients": "Gradients averaged over noise",
    "large_eps": "Unlimited changes",
    "logit_rescaling": "Rescaled logits",
    "transfer": "Carried-over adversarials",
    "beaten": "Other attacks in the same ball",
}
_NAMES = {"noise": "random noise", "fgsm": "FGSM", "pgd": "PGD"}


def masking_section(content: Mapping[str, Any], weights: str | None) -> list[dict[str, Any]]:
    """What the template shows of masking.json: an entry for each setting that the network was examined in, before them
    one with the verdicts on attacked accuracies ("rows") if there are any.

    weights: of the network that the page is about; None shows all.

    Raises:
        ValueError: the file's content is not what robode.masking writes.
    """
    try:
        records, verdicts = (
            [in_todays_words(each) for each in content.get(part, []) if weights is None or each["weights"] == weights]
            for part in ("records", "verdicts")
        )
        rows = [{"rows": [_row(verdict) for verdict in verdicts]}] if verdicts else []
        return [*rows, *(_entry(record) for record in records)]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("masking.json holds something else") from error


def _entry(record: Row) -> dict[str, Any]:
    settings, accuracy, verdict = record["settings"], record["accuracy"], str(record["verdict"])
    return {
        "passes": verdict.startswith(PASSES),
        "verdict": verdict[:1].upper() + verdict[1:] + ".",
        "setting": f"{settings['norm']}, eps {float(settings['eps']):g}",
        "samples": int(record["samples"]),
        "accuracy": " → ".join(f"{_NAMES.get(name, name)} {_share(value)}" for name, value in accuracy.items()),
        "attack": f"PGD with {settings['steps']} steps and {settings['restarts']} starts, Square with "
        f"{settings['queries']} queries",
        "checks": [_line(check) for check in record["checks"]],
    }


def _row(verdict: Row) -> dict[str, Any]:
    """A row of results.csv with its verdict."""
    attack, text, split = str(verdict["perturbation"]), str(verdict["verdict"]), str(verdict["split"])
    samples = f"{int(verdict['n'])}{'' if split == 'test' else f' ({split})'}"
    return {
        "attack": attack.removesuffix(f"_{verdict['norm']}").replace("_", " "),
        "norm": str(verdict["norm"]),
        "eps": f"{float(verdict['eps']):g}",
        "robust_accuracy": _share(verdict["robust_accuracy"]),
        "images": samples,
        "verdict": text,
        "passes": verdict["passes"] is True,
        "panel": int(verdict["samples"]),
        "checks": [_line(check) for check in verdict["checks"]],
    }


def _line(check: Row) -> dict[str, Any]:
    return {
        "title": _TITLES.get(check["name"], check["name"]),
        "found": _share(check["value"]),
        "allowed": f"≤ {_share(check['threshold'])}",
        "passed": check["passed"] is True,
        "sentence": str(check["sentence"]),
    }


def _share(value: Any) -> str:
    """0.964 → "96.4 %", without the sign that rounding may leave on a zero."""
    return percent(float(value)).replace("-0.0 %", "0.0 %")
