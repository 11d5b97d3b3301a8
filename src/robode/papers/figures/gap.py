"""What is proven and what attacks leave, for each row of an item: the truth lies between the two."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from robode.report.layout import Picture
from robode.report.style import BLUE, MUTED, VERMILLION, line_a_row, panels, styled
from robode.report.tables import measure_of
from robode.report.values import Collected


class Gap:
    """A panel for each radius, a line for each row: certified (left end) to attacked (right end), means over seeds.

    attack: the perturbation of results.csv whose rows give the right ends; "certified" gives the left ones.
    """

    def __init__(self, attack: str = "ensemble_l2"):
        self.attack = attack

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no radius has both."""
        rows = shares(collected.rows, self.attack)
        if rows.empty:
            return []
        radii = sorted(rows["severity"].unique())
        measure = measure_of(collected.rows)
        unit = {"xlabel": "%", "xlim": (-3, 103)} if measure.shares else {"xlabel": measure.label}
        names = rows.drop_duplicates("row").sort_values("row")
        place = {row: -index for index, row in enumerate(names["row"])}
        with styled():
            figure, axes = panels(len(radii), columns=3, width=3.2, height=0.9 + 0.28 * len(place))
            for index, (ax, radius) in enumerate(zip(axes, radii, strict=True)):
                _panel(ax, rows[rows["severity"] == radius], place)
                ax.set(title=f"L2 radius {radius:g}", **unit)
                line_a_row(ax, list(names["name"]) if index % 3 == 0 else [""] * len(place))
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        caption = (
            "Means over seeds, of the same test images. The share of images that are truly robust lies on the line."
        )
        return [Picture("gap", figure, "Between proof and attack", caption)]


def shares(rows: pd.DataFrame, attack: str) -> pd.DataFrame:
    """row, name, severity, clean, certified, attacked (shares in percent, other scores as they are): radii at
    which a row has both. rows: of a collected
    item (one for each cell's measurement: row, group, label, seed, perturbation, severity, task, score)."""
    kinds = {"certified": "certified", attack: "attacked"}
    found = rows[rows["perturbation"].isin([*kinds, "clean"])].copy()
    if found.empty:
        return pd.DataFrame()
    found["share"] = (100 if measure_of(found).shares else 1) * found["score"].astype(float)
    found["name"] = (found["group"].astype(str) + "  " + found["label"].astype(str)).str.strip()
    clean = found[found["perturbation"] == "clean"].groupby("row")["share"].mean()
    found = found[found["perturbation"] != "clean"]
    found["kind"] = found["perturbation"].map(kinds)
    table = found.pivot_table(index=["row", "name", "severity"], columns="kind", values="share").reset_index()
    if not {"certified", "attacked"} <= set(table):
        return pd.DataFrame()
    table["clean"] = table["row"].map(clean)
    return table.dropna(subset=["certified", "attacked"])


def _panel(ax: Axes, here: pd.DataFrame, place: dict[int, int]) -> None:
    y = [place[row] for row in here["row"]]
    ax.hlines(y, here["certified"], here["attacked"], color="#C8C8C8", linewidth=4)
    ax.plot(here["clean"], y, "|", color=MUTED, markersize=9, label="clean")
    ax.plot(here["certified"], y, "o", color=BLUE, label="certified", linestyle="none")
    ax.plot(here["attacked"], y, "s", color=VERMILLION, label="robust accuracy", linestyle="none")
