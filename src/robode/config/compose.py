"""From overrides to typed configurations, one for each job, composed once; no torch, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from robode.config import explain, safety, schema
from robode.config.allowed import check_set
from robode.config.config import CONFIGS, EvaluateConfig, Node, TrainConfig
from robode.config.instantiate import to_plain
from robode.config.jobs import Job
from robode.config.listing import options
from robode.config.overrides import one_by_one, text_keys, typed_text
from robode.config.parse import parse
from robode.config.paths import conf_dir, user_conf_dirs
from robode.config.validate import seeds_of
from robode.errors import BadInput

NO_EXPERIMENT = "default"
# Groups of which several options can be merged.
ADD_UP = ("suite", "callbacks", "logger", "objective")


@dataclass(frozen=True)
class Request:
    """A command line that was understood: ``robode <verb> [-m] [--config-dir …] key=value …``."""

    verb: str
    overrides: tuple[str, ...]
    multirun: bool = False
    config_dirs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        typed = tuple(typed_text(self.verb, each, self.multirun) for each in self.overrides)
        object.__setattr__(self, "overrides", typed)

    def for_hydra(self, overrides: Sequence[str]) -> list[str]:
        """What Hydra gets: with the user's folders appended to its search path."""
        folders = [f"'file://{_quoted(folder)}'" for folder in user_conf_dirs(self.config_dirs)]
        path = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
        return [*path, *overrides]


@dataclass(frozen=True)
class Composed:
    """One job as Hydra composes it. overrides: those that compose to it alone. cfg: without the ``hydra`` node.
    launcher: what the ``hydra`` node has chosen to run it."""

    overrides: tuple[str, ...]
    cfg: DictConfig
    launcher: str


def _quoted(folder: Path) -> str:
    return str(folder).replace("'", r"\'")


@contextmanager
def hydra_ready(verb: str) -> Iterator[None]:
    """Hydra with the project's configuration folder and typed keys; its global state is put back after."""
    schema.register()
    with initialize_config_dir(config_dir=str(conf_dir()), job_name=verb, version_base="1.3"):
        schema.forget_launchers()
        yield


def compose_jobs(request: Request) -> list[Job]:
    """The jobs of a request, one for each seed of ``seeds``. Raises `BadInput`."""
    return [job for each in composed(request) for job in typed(request.verb, each.overrides, each.cfg)]


def compose_trainings(request: Request) -> list[TrainConfig]:
    """The configurations of a request of `robode train`. Raises `BadInput`."""
    return [job.config for job in compose_jobs(request) if isinstance(job.config, TrainConfig)]


def compose_evaluations(request: Request) -> list[EvaluateConfig]:
    """The configurations of a request of `robode evaluate` or `certify`. Raises `BadInput`."""
    return [job.config for job in compose_jobs(request) if isinstance(job.config, EvaluateConfig)]


def typed(verb: str, overrides: Sequence[str], cfg: DictConfig) -> list[Job]:
    """The jobs of a composed configuration, one for each of its `seeds`.

    Raises:
        BadInput: like `parse`; a seed beside seeds.
    """
    config = parse(CONFIGS[verb], to_plain(cfg))
    if not isinstance(config, TrainConfig) or config.seeds is None:
        return [Job(tuple(overrides), config)]
    if one := [each for each in overrides if each.startswith("seed=")]:
        raise BadInput(f"{one[0]} and seeds={config.seeds}: give one of them")
    alone = [each for each in overrides if not each.startswith("seeds=")]
    found = []
    for seed in seeds_of(config):
        cfg.seed, cfg.seeds = seed, None  # and not in `config`: another value may refer to it
        found.append(Job((*alone, f"seed={seed}"), parse(TrainConfig, to_plain(cfg))))
    return found


def composed(request: Request) -> list[Composed]:
    """Compose every job of a request and make sure that no file of the user's steers Hydra.

    Raises:
        BadInput: unknown key or choice, wrong type, a sweep without -m, a foreign ``hydra`` node.
    """
    with hydra_ready(request.verb), _sentences(request):
        parsed = OverridesParser.create().parse_overrides(list(request.overrides))
        allowed = safety.check_overrides(parsed)
        _check_choices(request, parsed)
        if not request.multirun:
            for word in allowed:
                if "launcher" in word:
                    raise BadInput(f"{word}: says who runs the jobs of a sweep; write robode {request.verb} -m …")
            jobs = [request.overrides]
        else:
            jobs = one_by_one(parsed)
            # The sweep itself runs under the configuration without the swept overrides.
            fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
            if not _only_ours(request):
                _check_hydra(request, _compose(request, fixed), allowed)
        return [_checked(request, overrides, allowed) for overrides in jobs]


def _checked(request: Request, overrides: tuple[str, ...], allowed: Sequence[str]) -> Composed:
    """One job, in which nothing steers Hydra and no key is missing or too many."""
    cfg = _compose(request, [*allowed, *overrides] if request.multirun else overrides)
    _check_hydra(request, cfg, allowed)
    _drop_places(request.verb, cfg)
    _check_words(request.verb, cfg)
    choices = cfg.hydra.runtime.choices
    launcher = str(choices.get("hydra/launcher"))
    return Composed(overrides, _without_hydra(cfg, choices.get("experiment")), launcher)


def _without_hydra(cfg: DictConfig, experiment: str | None) -> DictConfig:
    """``experiment`` holds the recipe's name."""
    with open_dict(cfg):
        cfg.pop("hydra", None)
    if "experiment" in cfg:
        cfg.experiment = experiment or NO_EXPERIMENT
    return cfg


@contextmanager
def sweep_config(request: Request, folder: Path) -> Iterator[tuple[HydraContext, DictConfig]]:
    """What Hydra's launchers are set up with: its context, and the configuration that a sweep runs under, with the
    request's words for Hydra alone. folder: for files of the launcher's. Raises `BadInput`."""
    words = [each for each in request.overrides if each.lstrip("+").startswith(("hydra.", "hydra/"))]
    overrides = request.for_hydra([*words, f"hydra.sweep.dir='{_quoted(folder)}'", "hydra.mode=MULTIRUN"])
    with hydra_ready(request.verb):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        with _sentences(request):
            cfg = hydra.compose_config(request.verb, overrides, RunMode.MULTIRUN, with_log_configuration=False)
        yield HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg)), cfg


@dataclass(frozen=True)
class Launched:
    """What a launcher calls for each job, which is composed again where it runs."""

    verb: str
    task: Callable[[Job], None]

    def __call__(self, cfg: DictConfig) -> None:
        """No trace of Hydra is left while a job runs: Lightning would add overrides of Hydra's to its command line."""
        hydra = HydraConfig.get()
        overrides, experiment = list(hydra.overrides.task), hydra.runtime.choices.get("experiment")
        state, HydraConfig.instance().cfg = HydraConfig.instance().cfg, None
        try:
            _drop_places(self.verb, cfg)
            (job,) = typed(self.verb, overrides, _without_hydra(cfg, experiment))
            self.task(job)
        finally:
            HydraConfig.instance().cfg = state


def _check_choices(request: Request, parsed: Sequence[Override]) -> None:
    """A group is chosen by the name of one file, several only where they add up (``suite=[a,b]``)."""
    for override in parsed:
        key, line = override.key_or_group, str(override.input_line)
        if not key:
            raise BadInput(f"{line}: expected key=value, for example depth=8")
        if key.partition(".")[0] in schema.places(request.verb):
            raise BadInput(explain.unknown_key(request.verb, key, list(schema.words(request.verb))))
        if override.is_sweep_override() and not request.multirun:
            raise BadInput(explain.needs_multirun(line, key in text_keys(request.verb)))
        if override.is_delete() and key in schema.words(request.verb):
            raise BadInput(f"{line}: {key} is needed and cannot be removed; choose another value instead")
        _check_described(key, override)
        choices = options(key, user_conf_dirs(request.config_dirs))
        if not choices or override.is_sweep_override() or override.is_delete():
            continue
        value = override.value()
        if value == []:
            raise BadInput(f"{line}: expected at least one of: {', '.join(choices)}")
        if isinstance(value, list) and key not in ADD_UP:
            raise BadInput(explain.one_choice(request.verb, line, [str(v) for v in value]))
        if isinstance(value, list) and len(set(map(str, value))) < len(value):
            raise BadInput(f"{line}: names one of them twice; leave it out")
        if not isinstance(value, str | list | dict):
            raise BadInput(explain.unknown_choice(key, line.partition("=")[2], choices))


def _check_described(key: str, override: Override) -> None:
    """``model.name=…`` would be another family under the name of this one."""
    inside = override.value() if not override.is_sweep_override() and not override.is_delete() else None
    for each in (key, *(f"{key}.{name}" for name in inside)) if isinstance(inside, dict) else (key,):
        check_set(each)


def _drop_places(verb: str, cfg: DictConfig) -> None:
    """Without what a data set says about training, where nothing is trained."""
    with open_dict(cfg):
        for key in schema.places(verb):
            cfg.pop(key, None)


def _check_words(verb: str, cfg: DictConfig) -> None:
    """``+key=`` and files may add keys inside groups, but no top-level keys; ``~key`` may remove none."""
    known = schema.words(verb)
    for word in cfg:
        if word not in known and word != "hydra":
            raise BadInput(explain.unknown_key(verb, str(word), list(known)))
    for word in known:
        gone = word not in list(cfg)  # `in cfg` alone says no to a value that is still missing
        if gone or word in schema.groups(verb) and not isinstance(cfg[word], DictConfig):
            raise BadInput(f"{word}: is needed and cannot be removed; choose another value instead")


@contextmanager
def _sentences(request: Request) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into BadInput with one line."""
    try:
        yield
    except BadInput:
        raise
    except OverrideParseException as error:
        raise BadInput(explain.unreadable(str(error.override))) from error
    except Exception as error:  # whatever composing raises, the overrides or the files are at fault
        raise BadInput(_sentence(error, request)) from error


def _sentence(error: Exception, request: Request) -> str:
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, choice = explain.group_and_choice(str(error.missing_cfg_file))
        choices = options(group, user_conf_dirs(request.config_dirs)) or list(error.options or ())
        return explain.unknown_choice(group, choice, choices)
    unknown = explain.key_not_found(error)
    if unknown is not None:
        where, key = unknown
        return where + explain.unknown_key(request.verb, key, _known_keys(request))
    return explain.sentence(request.verb, error)


def _known_keys(request: Request) -> list[str]:
    """Keys of the configuration with the user's group choices, or of the default one where those fail."""
    choices = [w for w in request.overrides if "." not in w.split("=")[0] and "," not in w]
    groups = [w for w in choices if options(w.split("=")[0], user_conf_dirs(request.config_dirs))]
    for overrides in (groups, []):
        try:
            cfg = _compose(request, overrides)
        except Exception:  # these are at fault too
            continue
        plain = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(plain, dict)
        return list(explain.flat_keys({str(key): value for key, value in plain.items() if key != "hydra"}))
    return list(schema.words(request.verb))


def _compose(request: Request, overrides: Sequence[str]) -> DictConfig:
    return compose(config_name=request.verb, overrides=request.for_hydra(overrides), return_hydra_config=True)


def _only_ours(request: Request) -> bool:
    """Whether nothing but the project's own files can be composed, at their own places: no folder of the user's is
    searched, and no word leads out of them (`experiment=../../mine`, `+suite@_global_.hydra=…`)."""
    plain = all(".." not in word and set("@$\\").isdisjoint(word) for word in request.overrides)
    return plain and not user_conf_dirs(request.config_dirs)


def _check_hydra(request: Request, cfg: DictConfig, allowed: Sequence[str]) -> None:
    """A second composition, without the user's choices, only where his files may be in the first."""
    node = _hydra_node(cfg)
    ours = node if _only_ours(request) else _our_hydra_node(request, tuple(allowed))
    safety.check_hydra_node(node, ours)


def _our_hydra_node(request: Request, allowed: tuple[str, ...]) -> Node:
    """The `hydra` node without the user's choices, composed once a process."""
    key = (request.verb, tuple(user_conf_dirs(request.config_dirs)), allowed)
    if key not in _ours:
        _ours[key] = _hydra_node(_compose(request, allowed))
    return _ours[key]


_ours: dict[tuple[str, tuple[Path, ...], tuple[str, ...]], Node] = {}


def _hydra_node(cfg: DictConfig) -> Node:
    node = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}
