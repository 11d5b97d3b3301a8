"""The section of a run's page on gradient masking, from masking.json: its checks and verdicts."""

from dataclasses import dataclass

from robode.masking.file import PASSES, in_todays_words
from robode.report.layout import Plain
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


@dataclass(frozen=True)
class Check:
    """One sign of hidden gradients: the share that was found and what is allowed."""

    title: str
    found: str
    allowed: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Judged:
    """A robust accuracy of results.csv and its verdict. panel: on how many samples the checks were made."""

    attack: str
    norm: str
    eps: str
    robust_accuracy: str
    images: str
    verdict: str
    passes: bool
    panel: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Examined:
    """A setting that the network was examined in as such."""

    passes: bool
    verdict: str
    setting: str
    samples: int
    accuracy: str
    attack: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Section:
    """Both, in the order of the file."""

    judged: tuple[Judged, ...] = ()
    examined: tuple[Examined, ...] = ()


def masking_section(content: Plain, weights: str | None) -> Section:
    """What the template shows of masking.json.

    weights: of the network that the page is about; None shows all.

    Raises:
        ValueError: the file's content is not what robode.masking writes.
    """
    try:
        records, verdicts = (
            [in_todays_words(each) for each in content.get(part, []) if weights is None or each["weights"] == weights]
            for part in ("records", "verdicts")
        )
        return Section(tuple(map(_judged, verdicts)), tuple(map(_examined, records)))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("masking.json holds something else") from error


def _examined(record: Plain) -> Examined:
    settings, accuracy, verdict = record["settings"], record["accuracy"], str(record["verdict"])
    return Examined(
        passes=verdict.startswith(PASSES),
        verdict=verdict[:1].upper() + verdict[1:] + ".",
        setting=f"{settings['norm']}, eps {float(settings['eps']):g}",
        samples=int(record["samples"]),
        accuracy=" → ".join(f"{_NAMES.get(name, name)} {_share(value)}" for name, value in accuracy.items()),
        attack=f"PGD with {settings['steps']} steps and {settings['restarts']} starts, Square with "
        f"{settings['queries']} queries",
        checks=tuple(map(_check, record["checks"])),
    )


def _judged(verdict: Plain) -> Judged:
    attack, text, split = str(verdict["perturbation"]), str(verdict["verdict"]), str(verdict["split"])
    samples = f"{int(verdict['n'])}{'' if split == 'test' else f' ({split})'}"
    return Judged(
        attack=attack.removesuffix(f"_{verdict['norm']}").replace("_", " "),
        norm=str(verdict["norm"]),
        eps=f"{float(verdict['eps']):g}",
        robust_accuracy=_share(verdict["robust_accuracy"]),
        images=samples,
        verdict=text,
        passes=verdict["passes"] is True,
        panel=int(verdict["samples"]),
        checks=tuple(map(_check, verdict["checks"])),
    )


def _check(check: Plain) -> Check:
    return Check(
        title=_TITLES.get(check["name"], str(check["name"])),
        found=_share(check["value"]),
        allowed=f"≤ {_share(check['threshold'])}",
        passed=check["passed"] is True,
        sentence=str(check["sentence"]),
    )


def _share(value: float | str) -> str:
    """0.964 → "96.4 %", without the sign that rounding may leave on a zero."""
    return percent(float(value)).replace("-0.0 %", "0.0 %")
