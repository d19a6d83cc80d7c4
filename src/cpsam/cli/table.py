"""Prints a comparison: the answer, the table, and where the rest is."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpsam.study.table import answer, count_words, failed_runs, table_rows
from cpsam.study.words import control_words, data_notes, remarks


def print_results(results: dict[str, Any], folder: Path) -> None:
    """One table in the words of the report, as wide as the terminal, or as it needs where there is none."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=200)
    header, rows = table_rows(results)
    table = Table()
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # no markup: intervals are written in brackets
    console.print(table)
    warnings = [f"warning: {remark}" for remark in remarks(results)]
    lost = f"{count_words(results)}; those that did not finish are in no mean" if failed_runs(results) else ""
    for line in [answer(results), *control_words(results), *data_notes(results), *results["notes"], *warnings, lost]:
        if line:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    of = "Report on the newer plan" if results.get("overtaken") else "Report"
    console.print(f"{of}: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
