"""``hpo list``: what a study file can name.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Any

from hpo.cli.options import JsonOption, TrainersOption
from hpo.cli.support import print_json, show


def list_parts(trainers: TrainersOption = None, as_json: JsonOption = False) -> None:
    """Show the trainers, networks with their sizes, data sets, samplers, pruners and launchers, a line each."""
    from hpo.catalog import parts, sizes

    listed = parts(trainers or "")
    if as_json:
        print_json({**listed, "parameters": sizes()})
        return
    from rich.table import Table
    from rich.text import Text

    for title, entries in listed.items():
        table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
        for name, description in entries.items():
            table.add_row(Text(f"  {name}"), Text(description))
        show(table)
    if found := sizes():
        show(_size_table(found))
    else:
        show("the sizes of networks need PyTorch: pip install 'hpo-service[classifier]'")
    show("experiments are listed by hpo status")


def _size_table(found: dict[str, dict[str, int]]) -> Any:
    from rich.table import Table

    columns = list(dict.fromkeys(dataset for counts in found.values() for dataset in counts))
    table = Table(title="parameters of each network on each data set", title_justify="left", box=None, pad_edge=False)
    table.add_column("  network", no_wrap=True)
    for dataset in columns:
        table.add_column(dataset, justify="right", no_wrap=True)
    for network, counts in found.items():
        table.add_row(f"  {network}", *(f"{counts[name]:,}" if name in counts else "–" for name in columns))
    return table
