"""Tables as text: results for the terminal, and a paper's table as Markdown, LaTeX and CSV."""

import math
import re
import unicodedata
from collections.abc import Iterable

import pandas as pd
import rich.table
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from robode.report.cells import SYMBOLS, Cell, Line, Table
from robode.report.style import inert
from robode.report.values import longest_word
from robode.tasks.measure import CLASSIFICATION, Measure, measure_named

# what tells one evaluation of a run from another
EVALUATION = ("checkpoint", "weights", "split", "protocol", "noise_seed")
REFERENCE = (
    "Reference solver: the score on the same samples, adversarial or clean, when the ODE is solved more finely. Where "
    "the two are further apart than half the interval (≠), the score or the attack belongs to the solver, not to "
    "the ODE."
)
# columns of the item side by side, with and without published values; a wider table goes on below
LATEX_WIDTHS = {True: 2, False: 5}
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "–": "--", "—": "---",
    "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\ne$", "∞": r"$\infty$",
    "√": r"$\surd$", "∈": r"$\in$", "→": r"$\to$", "−": "$-$", "′": "$'$", "‖": r"$\|$", "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "∇": r"$\nabla$", "…": r"\dots{}", "’": "'", "“": "``", "”": "''", "°": r"$^\circ$", "²": "$^2$", "³": "$^3$",
    "\u00a0": "~", "\u202f": r"\,", "\u2009": r"\,",
}  # fmt: skip
_GREEK = "alpha beta gamma delta zeta eta theta kappa lambda mu nu xi pi rho sigma tau chi psi omega".split()
_TEX |= {letter: rf"$\{name}$" for letter, name in zip("αβγδζηθκλμνξπρστχψω", _GREEK, strict=True)}
_TEX |= {"ε": r"$\varepsilon$", "φ": r"$\varphi$", "Γ": r"$\Gamma$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$"}


def varying(summary: pd.DataFrame, names: Iterable[str] = EVALUATION) -> list[str]:
    """Those of the columns that must be shown to tell evaluations apart; weights only where the checkpoint does not.

    Also `evaluation`, but only where a perturbation of the same name was set up in several ways: each perturbation
    has a hash of its own.
    """
    names = list(names)
    found = [name for name in names if summary[name].nunique(dropna=False) > 1]
    if "weights" in found and summary.groupby(["run", "checkpoint"], dropna=False)["weights"].nunique().max() == 1:
        found.remove("weights")
    named = ["run", *(name for name in names if name != "run"), "perturbation", "norm", "severity_unit", "space"]
    if summary.groupby(named, dropna=False)["evaluation"].nunique().max() > 1:
        found.append("evaluation")
    return found


def told_apart(row: pd.Series, names: Iterable[str]) -> str:
    """What the columns that vary say of one row: "r1 · n = 200"."""
    return " · ".join(f"n = {row[name]}" if name == "n" else str(row[name]) for name in names)


def measure_of(rows: pd.DataFrame) -> Measure:
    """How the scores of these rows read; they are of one task."""
    return measure_named(rows["task"].iloc[-1]) if len(rows) else CLASSIFICATION


def score(row: pd.Series) -> str:
    """Of a summary row: "96.4 %", or an error as it is."""
    return measure_named(row["task"]).text(row["score"])


def interval(row: pd.Series) -> str:
    """Of a summary row: "[95.1, 97.3]" (percent), or the ends as they are."""
    return measure_named(row["task"]).interval(row["score_low"], row["score_high"])


def level(row: pd.Series) -> str:
    """The noise level of a summary row with its unit: "variance 0.05"; "–" where there is none."""
    if row["severity_unit"] in ("", "none"):
        return "–"
    unit = str(row["severity_unit"]).replace("_", " ")
    space = " (normalised)" if row["space"] == "normalised" else ""
    return f"{unit} {row['severity']:g}".strip() + space


def has_reference(summary: pd.DataFrame) -> bool:
    """Whether a row was scored a second time with the reference solver: without, the column of it is left out."""
    return bool(summary["score_reference"].notna().any())


def differs(row: pd.Series) -> bool:
    """Whether the reference solver changes the score of a summary row by more than half the width of its interval."""
    gap = abs(row["score_reference"] - row["score"])
    return bool(gap > (row["score_high"] - row["score_low"]) / 2)  # NaN is no difference


def reference(row: pd.Series) -> str:
    """The score of a summary row with the reference solver: "45.0 %", "≠ 45.0 %" where it `differs`, "–" without."""
    return f"{'≠ ' if differs(row) else ''}{measure_named(row['task']).text(row['score_reference'])}"


def bound(value: float) -> str:
    """A certified Lipschitz bound in four digits, "none" where nothing is certified."""
    return f"{value:.4g}" if math.isfinite(value) else "none"


def verdict(value: float) -> str:
    """What a Lipschitz bound says about distances, in three words."""
    if not math.isfinite(value):
        return "no certificate"
    return "1-Lipschitz" if value <= 1.0 else "may expand"


def certificates_line(flow_ode: float, flow_discrete: float) -> str:
    """One line for the terminal; the two bounds are different claims and are never merged."""
    return (
        f"certified Lipschitz bound: ODE (flow_ode) {bound(flow_ode)}, {verdict(flow_ode)}"
        f" | network that runs (flow_discrete) {bound(flow_discrete)}, {verdict(flow_discrete)}"
    )


def results_table(summary: pd.DataFrame, title: str = "") -> rich.table.Table:
    """One line per perturbation and level: mean score over repeats, interval, reference solver, samples.

    n: samples, times noisy copies where there are several. summary: results.summarise(rows). What tells evaluations
    apart gets a column where it varies. Words and numbers are never broken; where there is little room, names and
    levels go on below.
    """
    shown, twice = varying(summary), has_reference(summary)
    apart = (0, 1 if twice else 2, 0, 0)
    table = rich.table.Table(box=None, header_style="bold", padding=apart, caption_justify="left")
    table.title, table.title_justify = Text(title, no_wrap=True, overflow="ignore"), "left"
    table.caption = REFERENCE if twice else None
    for name in shown:
        table.add_column(name, overflow="fold")
    texts = {
        "perturbation": [str(name).replace("_", " ") for name in summary["perturbation"]],
        "level": [level(row) for _, row in summary.iterrows()],
    }
    for name, said in texts.items():
        table.add_column(name, min_width=max(map(len, " ".join([name, *said]).split())))
    names = dict.fromkeys(measure_named(text).label for text in summary["task"])
    for name in (" / ".join(names).replace(" (", "\n("), "95 % interval", *(["reference"] if twice else []), "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for (_, row), *said in zip(summary.iterrows(), *texts.values(), strict=True):
        table.add_row(
            *(escape(str(row[name])) for name in shown),
            *map(escape, said),
            score(row),
            interval(row),
            *([Text(reference(row), style="bold yellow" if differs(row) else "")] if twice else []),
            f"{row['n']} × {row['repeats']}" if row["repeats"] > 1 else str(row["n"]),
        )
    return table


def terminal(table: Table, width: int = 80) -> list[rich.table.Table]:
    """The table in as many pieces as it takes for nothing to be broken; a cell is ours and the sign of its verdict."""
    names = [(group, row) for group, rows in table.groups for row in rows]
    first = max([len(f"  {row.label}") for _, row in names] + [len(group) for group, _ in names] + [1])
    whole = longest_word(row.label for _, row in names) + 2
    first = max(min(first, 2 * width // 5), min(whole, 3 * width // 4))  # a longer label goes on below, but no word
    texts = [[f"{cell.ours}{cell.marks} {SYMBOLS[cell.verdict]}".rstrip() for cell in row.cells] for _, row in names]
    widths = [max([len(name), *(len(line[i]) for line in texts)]) for i, name in enumerate(table.columns)]
    pieces: list[list[int]] = []
    room = 0
    for i, wide in enumerate(widths):
        if not pieces or wide + 2 > room:
            pieces.append([])
            room = width - first - 2
        pieces[-1].append(i)
        room -= wide + 2
    return [_piece(table, piece, texts, first) for piece in pieces]


def _piece(table: Table, columns: list[int], texts: list[list[str]], first: int) -> rich.table.Table:
    piece = rich.table.Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    piece.add_column(width=first, overflow="fold")
    for i in columns:
        piece.add_column(Text(table.columns[i]), no_wrap=True)
    lines = iter(texts)
    for group, rows in table.groups:
        if group:
            piece.add_row(Text(group, style="bold"))
        for row in rows:
            line = next(lines)
            label = Padding(Text(row.label), (0, 0, 0, 2 * bool(group)))
            piece.add_row(label, *(Text(line[i]) for i in columns))
    return piece


def markdown(table: Table) -> str:
    """A GitHub table; every cell is `paper | ours ± | verdict`, or only ours where nothing is published."""
    lines = [f"# {_md(table.title)}", ""]
    if table.label:
        lines += [f"**{_md(table.label)}**", ""]
    lines += [table.summary + ".", ""]
    head = ["", "seeds", "parameters", *table.columns]
    lines += [_md_line(map(_md, head)), _md_line(["---", "--:", "--:", *["---"] * len(table.columns)])]
    for group, rows in table.groups:
        if group:
            lines.append(_md_line([f"**{_md(group)}**", *[""] * (len(head) - 1)]))
        for row in rows:
            cells = (r" \| ".join(_words(cell, table.compared)) for cell in row.cells)
            lines.append(_md_line([_md(row.label), row.seeds, row.params, *cells]))
    return "\n".join([*lines, "", *(f"- {_md(note)}" for note in table.notes)]) + "\n"


def latex(table: Table) -> str:
    """A float for \\input with booktabs: three columns (paper, ours ±, verdict) for each column of the paper."""
    width, count = LATEX_WIDTHS[table.compared], len(table.columns)
    blocks = [range(i, min(i + width, count)) for i in range(0, count, width)]
    caption = ". ".join(_tex(text.strip().rstrip(".")) for text in (table.title, table.label, table.summary) if text)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}",
        rf"\caption{{{caption}.}}",
        "\n\\par\\medskip\n".join(_block(table, list(block), first=not block.start) for block in blocks),
        *(rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {_tex(note)}}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv(cells: pd.DataFrame) -> str:
    """The cells of `compare`, one line each; runs separated by spaces, empty where there is no number. A text that a
    spreadsheet would take for a formula has a "'" before it."""
    flat = cells.assign(runs=[" ".join(names) for names in cells["runs"]])
    flat = flat.map(lambda value: inert(value) if isinstance(value, str) else value)
    return str(flat.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _words(cell: Cell, compared: bool) -> list[str]:
    """Paper, ours, verdict; or ours alone."""
    own = cell.ours + cell.marks
    if not compared:
        return [cell.verdict if cell.verdict == "not run" else own]
    return [cell.paper, own, cell.judged or "–"]


def _md(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def _md_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _block(table: Table, columns: list[int], *, first: bool) -> str:
    """One tabular with some of the columns; seeds and parameters in the first one only."""
    each = 3 if table.compared else 1
    sizes = ["seeds", "parameters"] if first else []
    width = 1 + len(sizes) + each * len(columns)
    start = 2 + len(sizes)
    head = [rf"\multicolumn{{{each}}}{{c}}{{{_tex(table.columns[i])}}}" for i in columns]
    kinds = r"@{\hskip 1.2em}".join(["rrl" if table.compared else "r"] * len(columns))
    lines = [rf"\begin{{tabular}}{{l{'r' * len(sizes)}{kinds}}}", r"\toprule"]
    lines.append(_tex_line(["", *sizes, *head]))
    if table.compared:
        spans = [(start + 3 * i, start + 3 * i + 2) for i in range(len(columns))]
        lines.append(" ".join(rf"\cmidrule(lr){{{a}-{b}}}" for a, b in spans))
        lines.append(_tex_line([""] * (1 + len(sizes)) + ["paper", r"ours $\pm$", "verdict"] * len(columns)))
    for group, rows in table.groups:
        lines.append(r"\midrule")
        if group:
            lines.append(_tex_line([rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(group)}}}}}"]))
        lines += [_tex_row(row, columns, first, table.compared) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _tex_row(row: Line, columns: list[int], first: bool, compared: bool) -> str:
    sizes = [row.seeds, row.params] if first else []
    words = [word for i in columns for word in _words(row.cells[i], compared)]
    return _tex_line([_tex(each) for each in (row.label, *sizes, *words)])


def _tex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex(text: str) -> str:
    """Escaped for text mode; a letter that pdflatex does not know becomes its code point, so that it compiles."""
    return "".join(_TEX.get(letter) or _tex_letter(letter) for letter in " ".join(text.split()))


def _tex_letter(letter: str) -> str:
    plain = unicodedata.normalize("NFKC", letter)
    if len(plain) == 1 and ord(plain) < 0x180:  # Latin letters with their accents
        return plain
    if all(each in _TEX for each in plain):
        return "".join(_TEX[each] for each in plain)
    return rf"\texttt{{U+{ord(letter):04X}}}"
