"""Prints a comparison: the answer, the table, and where the rest is."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as Grid

from cpsam.progress.terminal import Terminal
from cpsam.report.answer import answer, control_words
from cpsam.report.facts import count_words, data_notes, notes
from cpsam.report.remarks import remarks
from cpsam.report.results import Results
from cpsam.report.table import Table, arms_table


def wide_grid(table: Table) -> Grid:
    grid = Grid()
    for index, name in enumerate(table.header):
        grid.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in table.rows:
        grid.add_row(*row)
    return grid


def record(header: Sequence[str], row: Sequence[str]) -> Grid:
    """Returns one row with one line per column."""
    table = Grid(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, cell in zip(header, row, strict=True):
        table.add_row(name, cell)
    return table


def wide_terminal() -> Terminal:
    """Returns the terminal. A file or a pipe gets 200 columns."""
    console = Terminal(soft_wrap=False)
    return console if console.is_terminal else Terminal(width=200)


def print_table(console: Terminal, table: Table) -> None:
    """Prints a table that cuts no cell. A console that is too narrow gets one paragraph per row."""
    grid = wide_grid(table)
    needed = console.measure(grid, options=console.options.update(max_width=10_000)).maximum
    if needed <= console.width:
        console.print(grid)
        return
    for row in table.rows:
        console.print(row[0], style="bold", soft_wrap=True)
        console.print(record(table.header[1:], row[1:]))


def print_results(results: Results, folder: Path) -> None:
    """Prints one table per setting, in the words of the report."""
    console = wide_terminal()
    for setting in results.settings:
        if results.has_settings:
            console.print(setting.name, style="bold")
        print_table(console, arms_table(results, setting.name if results.has_settings else None))
    said = [answer(results), *control_words(results), *data_notes(results), *notes(results)]
    said += [f"warning: {remark}" for remark in remarks(results)]
    for line in [*said, *failures_words(results)]:
        console.print(line, soft_wrap=True)
    of = "Report on the newer plan" if results.overtaken else "Report"
    console.print(f"{of}: {folder / 'report.html'}", soft_wrap=True)


def failures_words(results: Results) -> list[str]:
    """Returns one line on the runs that did not finish; [] if all did."""
    statuses = {run.status for arm in results.arms for run in arm.runs if not run.done}
    if not statuses:
        return []
    retry = "; --retry-failed tries once more those that failed" if "failed" in statuses else ""
    return [f"{count_words(results)}; those that did not finish are in no mean{retry}"]
