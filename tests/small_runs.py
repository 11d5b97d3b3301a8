"""Real runs that take a tenth of a second: a CH-NODE of two layers on 60 points."""

from robode.api.training import run_training
from robode.config.compose import Request, compose_jobs
from robode.config.instantiate import build
from robode.runs.run import Run, find

SMALL = (
    "data=double_moons", "data.validation=0.25", "data.limit_train=60", "model=chnode", "model.width=4", "depth=2",
    "batch_size=25", "suite=clean", "repeats=1", "trainer.threads=1", "callbacks.bsm.every=2", "lr=0.05",
)  # fmt: skip


def composed(*words, verb="train"):
    """The configuration of a command line."""
    (job,) = compose_jobs(Request(verb, words))
    return job.config


def build_each(nodes, drop=()):
    """Every entry of a group, built; entries set to null are left out. drop: as of `build`."""
    return {name: build(node, drop) for name, node in nodes.items() if node is not None}


def train(*words) -> Run:
    """What `robode train` does with SMALL and these words, without its error handling."""
    return find(run_training(composed(*SMALL, *words), words).run)[0]
