"""What Hydra finds for the same words in the same files is found once a process; no test changes those of conf/.

Nine tenths of a composition go into reading and merging what the groups choose; the tests ask for some 900, most of
them for choices that were asked for before. Values of single keys are set anew each time, by Hydra itself.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig

from robode.config.paths import conf_dir

FIXED = {"file": str(conf_dir()), "pkg": "hydra.conf", "structured": ""}


@contextmanager
def composed_once() -> Iterator[None]:
    """Each file of conf/, each list of choices and what they merge to: once."""
    Plugins.instance()  # fills the registry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigStore, "__deepcopy__", lambda store, memo: store, raising=False)  # there is one
        for scheme in ("file", "pkg"):
            source = SourcesRegistry.instance().resolve(scheme)
            patch.setattr(source, "load_config", files(source.load_config))
        patch.setattr(config_loader_impl, "create_defaults_list", choices(config_loader_impl.create_defaults_list))
        merge = merged(ConfigLoaderImpl._compose_config_from_defaults_list)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge)
        yield


def fixed(source: ConfigSource) -> bool:
    return FIXED.get(source.scheme()) == source.path


def searched(repo: IConfigRepository) -> tuple[object, ...] | None:
    """What the search path holds: of folders that are not fixed the files; None where something else is searched."""
    found: list[object] = []
    for source in repo.get_sources():
        if fixed(source):
            found.append(source.scheme())
        elif source.scheme() == "file":
            folder = Path(source.path)
            found.append(
                [(str(each.relative_to(folder)), each.read_bytes()) for each in sorted(folder.rglob("*.yaml"))]
            )
        else:
            return None
    return tuple(found)


def files(load: Callable[[ConfigSource, str], ConfigResult]) -> Callable[[ConfigSource, str], ConfigResult]:
    """`ConfigSource.load_config`; whoever asks gets a copy of his own."""
    known: dict[tuple[str, str], bytes] = {}

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        if not fixed(source):
            return load(source, config_path)
        key = source.path, config_path
        if key not in known:
            known[key] = pickle.dumps(load(source, config_path))
        return pickle.loads(known[key])

    return load_config


def choices(create: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    """`create_defaults_list`, which decides what is merged. Mistakes are made anew."""
    known: dict[str, DefaultsList] = {}

    def create_defaults_list(repo: IConfigRepository, overrides_list: Sequence[Override], **rest) -> DefaultsList:
        if (place := searched(repo)) is None:
            return create(repo=repo, overrides_list=overrides_list, **rest)
        asked = Overrides(repo=repo, overrides_list=overrides_list)
        key = repr((place, rest, asked.override_choices, asked.append_group_defaults, asked.deletions))
        if key not in known:
            known[key] = create(repo=repo, overrides_list=overrides_list, **rest)
        return replace(known[key], config_overrides=asked.config_overrides)

    return create_defaults_list


def merged(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """`_compose_config_from_defaults_list`; whoever asks gets a copy of his own."""
    known: dict[str, bytes] = {}

    def compose_config(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if (place := searched(repo)) is None:
            return compose(loader, defaults, repo)
        key = repr((place, defaults))
        if key not in known:
            known[key] = pickle.dumps(compose(loader, defaults, repo))
        return pickle.loads(known[key])

    return compose_config
