"""`resume=RUN`: the run's own configuration, with the few words that may change."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from robode.errors import BadInput
from robode.runs import Run, checkpoint_path, find

# What does not change the trajectory up to the epoch that was reached.
MAY_CHANGE = ("epochs", "trainer", "callbacks", "logger", "suite", "protocol", "repeats", "data.root")


def resumed(cfg: DictConfig, words: Sequence[str]) -> tuple[DictConfig, Run]:
    """The configuration to continue with, and the run.

    cfg: what the command line composes to; words: the typed `key=value` among it. A word outside MAY_CHANGE
    is refused, because the run would no longer be the one that its name and its first epochs belong to.

    Raises:
        BadInput: no such run, no last.ckpt yet, or a word that may not change.
    """
    run, _ = find(cfg.resume, key="resume")
    checkpoint_path(run, "last")
    config = run.config()
    for word in words:
        key = word.split("=")[0].lstrip("+~").split("@")[0].replace("/", ".")
        if key == "resume":
            continue
        if not any(key == allowed or key.startswith(allowed + ".") for allowed in MAY_CHANGE):
            raise BadInput(
                f"{key}: a resumed run keeps its own configuration except {', '.join(MAY_CHANGE)}; "
                "start a new run to change anything else"
            )
        with open_dict(config):
            OmegaConf.update(config, key, OmegaConf.select(cfg, key), merge=False)
            if key == "data.root" and "root" in config.data.source:
                config.data.source.root = cfg.data.root
    return config, run
