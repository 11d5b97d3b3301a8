"""Every word in conf/paper is one that `robode train` and `robode evaluate` understand."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from robode.config.compose import Request, compose_evaluations, compose_trainings
from robode.config.config import TrainConfig
from robode.config.validate import check
from robode.papers.spec import Item, Size, items, key_of
from robode.report.layout import TableRow

ITEMS = items()


def compose_rows(item: Item, size: Size, rows: Iterable[TableRow]) -> list[TrainConfig]:
    """What each row trains at a size, for every variant of the item."""
    found = []
    for experiment in item.experiment.values():
        for row in rows:
            own = [key_of(each) for each in row.overrides] if row.start else []  # hold at every size
            of_size = [each for each in size.overrides if key_of(each) not in own]
            start = ["start=of_another_row"] if row.start else []
            overrides = (f"experiment={experiment}", *row.overrides, *of_size, *start, "seed=1")
            (config,) = compose_trainings(Request("train", overrides))
            check(config)
            assert config.experiment == experiment and config.seed == 1
            found.append(config)
    return found


@pytest.mark.parametrize("name", ITEMS)
def test_no_label_of_a_size_states_the_seeds(name: str) -> None:
    """`seeds=` changes them, and the column beside the label tells how many there are."""
    assert not [size.label for size in ITEMS[name].sizes.values() if "seed" in size.label]


@pytest.mark.parametrize("name", ITEMS)
def test_a_row_of_every_item_composes(name: str, folder: Path) -> None:
    """One row at every variant, with the overrides of one size."""
    item = ITEMS[name]
    found = compose_rows(item, next(iter(item.sizes.values())), item.rows[-1:])
    assert {config.experiment for config in found} == set(item.experiment.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ITEMS)
def test_every_row_of_our_papers_composes(name: str, folder: Path) -> None:
    """And no two rows of a table are the same training; a size may leave out those that would be."""
    item = ITEMS[name]
    for size in item.sizes.values():
        kept = [row for row in item.rows if row.matches(size.rows)]
        found = [config.plain() for config in compose_rows(item, size, kept)]
        assert all(a != b for a, b in itertools.combinations(found, 2))


@pytest.mark.slow
def test_our_evaluations_compose(folder: Path) -> None:
    words = {
        (*each, *size.evaluate) for item in ITEMS.values() for each in item.evaluations for size in item.sizes.values()
    }
    for each in sorted(words):
        (cfg,) = compose_evaluations(Request("evaluate", each))
        assert set(cfg.suite) > {"clean"} or cfg.split == "train", each
