"""From command-line words to composed configurations, one for each job; no torch, nothing written.

Hydra composes twice: here, for every job of a sweep, so that bad input is found before anything starts;
and again when it runs the jobs (it may do so in another process).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from robode.config import explain, safety, schema
from robode.config.allowed import check_set
from robode.config.listing import options
from robode.config.paths import conf_dir, user_conf_dirs
from robode.errors import BadInput

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

NO_EXPERIMENT = "default"
# Groups of which several options can be merged.
ADD_UP = ("suite", "callbacks", "logger", "objective")
_OUR_NODES: "WeakKeyDictionary[object, dict[Any, dict[str, Any]]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Request:
    """A command line that was understood: ``robode <verb> [-m] [--config-dir …] key=value …``."""

    verb: str
    overrides: tuple[str, ...]
    multirun: bool = False
    config_dirs: tuple[str, ...] = ()

    def for_hydra(self, overrides: Sequence[str]) -> list[str]:
        """The words that Hydra gets: with the user's folders appended to its search path."""
        folders = [f"'file://{_quoted(folder)}'" for folder in user_conf_dirs(self.config_dirs)]
        path = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
        return [*path, *overrides]


def _quoted(folder: Path) -> str:
    return str(folder).replace("'", r"\'")


@contextmanager
def hydra_session(verb: str) -> "Iterator[Hydra]":
    """Hydra with the project's configuration folder and typed keys; its global state is put back after."""
    schema.register()
    with initialize_config_dir(config_dir=str(conf_dir()), job_name=verb, version_base="1.3"):
        session = GlobalHydra.instance().hydra
        assert session is not None
        yield session


def compose_jobs(session: "Hydra", request: Request) -> list[DictConfig]:
    """Compose every job of a request and make sure that no file of the user's steers Hydra.

    Returns:
        One configuration a job, without the ``hydra`` node and with the experiment's name filled in.

    Raises:
        BadInput: unknown key or choice, wrong type, a sweep without -m, a foreign ``hydra`` node.
    """
    with _sentences(session, request):
        parsed = OverridesParser.create().parse_overrides(list(request.overrides))
        allowed = safety.check_overrides(parsed)
        _check_choices(request, parsed)
        ours = _our_hydra_node(session, request, allowed)
        if not request.multirun:
            jobs = [list(request.overrides)]
        else:
            jobs = sweep(request.overrides)
            # The sweep itself runs under the configuration without the swept words.
            fixed = [str(word.input_line) for word in parsed if not word.is_sweep_override()]
            safety.check_hydra_node(_hydra_node(_compose(session, request, fixed)), ours)
        configs = [_compose(session, request, words) for words in jobs]
        for cfg in configs:
            safety.check_hydra_node(_hydra_node(cfg), ours)
            _drop_places(request.verb, cfg)
            _check_words(request.verb, cfg)
        return [task_config(cfg) for cfg in configs]


def _check_choices(request: Request, parsed: Sequence[Override]) -> None:
    """A group is chosen by the name of one file, several only where they add up (``suite=[a,b]``)."""
    for word in parsed:
        check_set(word.key_or_group)
        if word.key_or_group.partition(".")[0] in schema.places(request.verb):
            raise BadInput(explain.unknown_key(request.verb, word.key_or_group, list(schema.words(request.verb))))
        choices = options(word.key_or_group, user_conf_dirs(request.config_dirs))
        if not choices or word.is_sweep_override() or word.is_delete():
            continue
        value = word.value()
        if isinstance(value, list) and word.key_or_group not in ADD_UP:
            raise BadInput(explain.one_choice(request.verb, str(word.input_line), [str(v) for v in value]))
        if not isinstance(value, str | list | dict):
            shown = str(word.input_line).partition("=")[2]
            raise BadInput(explain.unknown_choice(word.key_or_group, shown, choices))


def _drop_places(verb: str, cfg: DictConfig) -> None:
    """Without what a data set says about training, where nothing is trained."""
    with open_dict(cfg):
        for key in schema.places(verb):
            cfg.pop(key, None)


def _check_words(verb: str, cfg: DictConfig) -> None:
    """``+key=`` and files may add keys inside groups, but no top-level words; ``~key`` may remove none."""
    known = schema.words(verb)
    for word in cfg:
        if word not in known and word != "hydra":
            raise BadInput(explain.unknown_key(verb, str(word), list(known)))
    for word in known:
        gone = word not in list(cfg)  # `in cfg` alone says no to a value that is still missing
        if gone or word in schema.groups(verb) and not isinstance(cfg[word], DictConfig):
            raise BadInput(f"{word}: is needed and cannot be removed; choose another value instead")


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The words of each job of a sweep, in the order in which Hydra's own sweeper runs them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    tasks = [word for word in parsed if not word.is_hydra_override()]
    hydra_words = [str(word.input_line) for word in parsed if word.is_hydra_override()]
    batches = BasicSweeper.split_arguments(tasks, max_batch_size=None)
    return [[*hydra_words, *job] for job in batches[0]]


def task_config(cfg: DictConfig) -> DictConfig:
    """A composed configuration without its ``hydra`` node; ``experiment`` holds the recipe's name."""
    name = cfg.hydra.runtime.choices.get("experiment") or NO_EXPERIMENT
    with open_dict(cfg):
        del cfg["hydra"]
    name_experiment(cfg, name)
    return cfg


def name_experiment(cfg: DictConfig, name: str | None) -> None:
    """Write the chosen experiment's name into a configuration that has a place for it."""
    if "experiment" in cfg:
        cfg.experiment = name or NO_EXPERIMENT


@contextmanager
def _sentences(session: "Hydra", request: Request) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into BadInput with one line."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # whatever composing raises, the words or the files are at fault
        raise BadInput(_sentence(error, session, request)) from error


def _sentence(error: Exception, session: "Hydra", request: Request) -> str:
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, choice = explain.group_and_choice(str(error.missing_cfg_file))
        choices = options(group, user_conf_dirs(request.config_dirs)) or list(error.options or ())
        return explain.unknown_choice(group, choice, choices)
    unknown = explain.key_not_found(error)
    if unknown is not None:
        where, key = unknown
        return where + explain.unknown_key(request.verb, key, _known_keys(session, request))
    return explain.sentence(request.verb, error)


def _known_keys(session: "Hydra", request: Request) -> list[str]:
    """Keys of the configuration with the user's group choices, or of the default one where those fail."""
    choices = [w for w in request.overrides if "." not in w.split("=")[0] and "," not in w]
    groups = [w for w in choices if options(w.split("=")[0], user_conf_dirs(request.config_dirs))]
    for words in (groups, []):
        try:
            cfg = _compose(session, request, words)
        except Exception:  # these words are at fault too
            continue
        plain = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(plain, dict)
        plain.pop("hydra", None)
        return list(explain.flat_keys(plain))
    return list(schema.words(request.verb))


def _compose(session: "Hydra", request: Request, words: Sequence[str]) -> DictConfig:
    overrides = request.for_hydra(words)
    return session.compose_config(config_name=request.verb, overrides=overrides, run_mode=RunMode.RUN)


def _our_hydra_node(session: "Hydra", request: Request, allowed: Sequence[str]) -> dict[str, Any]:
    """The `hydra` node without the user's choices, composed once a session; from our files alone once a process."""
    owner = session if user_conf_dirs(request.config_dirs) else hydra_session
    known, key = _OUR_NODES.setdefault(owner, {}), (request.verb, request.config_dirs, tuple(allowed))
    if key not in known:
        known[key] = _hydra_node(_compose(session, request, allowed))
    return known[key]


def _hydra_node(cfg: DictConfig) -> dict[str, Any]:
    node = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}
