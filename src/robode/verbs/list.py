"""`robode list`: what can be chosen, with the line that each YAML file says about itself."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robode.config.listing import GROUPS, entries
from robode.config.paths import user_conf_dirs
from robode.errors import BadInput
from robode.papers.spec import listed as papers


def run_list(arguments: Sequence[str]) -> int:
    """Print the options of one group or of all of them. Exit code 0.

    Raises:
        BadInput: a word that is not one of ``GROUPS``.
    """
    if list(arguments) in (["-h"], ["--help"]):
        print(f"usage: robode list [{'|'.join(GROUPS)}] ...\n\nWhat can be chosen; without a word all of it.")
        return 0
    unknown = [word for word in arguments if word not in GROUPS]
    if unknown:
        raise BadInput(f"robode list {unknown[0]}: choose from {', '.join(GROUPS)}")
    console = Console()
    if not console.is_terminal:  # one entry a line for grep
        console = Console(width=250)
    user_dirs = user_conf_dirs()
    for title in arguments or GROUPS:
        group = GROUPS[title]
        how = "robode reproduce PAPER/ITEM" if group == "paper" else f"{group}=…"
        table = Table(title=f"{title}  ({how})", title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for name, about in (papers(user_dirs) if group == "paper" else entries(group, user_dirs)).items():
            table.add_row(escape(name), escape(about))
        console.print(table)
        console.print()
    return 0
