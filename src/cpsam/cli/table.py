"""Prints a comparison: the answer, the table, and where the rest is."""

from pathlib import Path
from typing import Any

from rich.table import Table

from cpsam.progress.terminal import Terminal
from cpsam.report.table import answer, count_words, failed_runs, settings_of, table_rows
from cpsam.report.words import control_words, data_notes, remarks


def wide_table(header: list[str], rows: list[list[str]]) -> Table:
    table = Table()
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def record(header: list[str], row: list[str]) -> Table:
    """Returns one row with one line per column."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, cell in zip(header, row, strict=True):
        table.add_row(name, cell)
    return table


def wide_terminal() -> Terminal:
    """Returns the terminal, or 200 columns for what is no terminal."""
    console = Terminal(soft_wrap=False)
    return console if console.is_terminal else Terminal(width=200)


def print_rows(console: Terminal, header: list[str], rows: list[list[str]]) -> None:
    """Prints a table that cuts no cell; where the console is too narrow for it, one paragraph per
    row.
    """
    table = wide_table(header, rows)
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if needed <= console.width:
        console.print(table)
        return
    for row in rows:
        console.print(row[0], style="bold", soft_wrap=True)
        console.print(record(header[1:], row[1:]))


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Prints one table per setting, in the words of the report."""
    console = wide_terminal()
    settings = [setting["name"] for setting in settings_of(results)]
    for name in settings:
        if len(settings) > 1:
            console.print(name, style="bold")
        print_rows(console, *table_rows(results, name if len(settings) > 1 else None))
    warnings = [f"warning: {remark}" for remark in remarks(results)]
    lost = (
        f"{count_words(results)}; those that did not finish are in no mean"
        if failed_runs(results)
        else ""
    )
    lost += (
        "; --retry-failed tries once more those that failed"
        if any(status == "failed" for *_, status, _ in failed_runs(results))
        else ""
    )
    for line in [
        answer(results),
        *control_words(results),
        *data_notes(results),
        *results["notes"],
        *warnings,
        lost,
    ]:
        if line:
            console.print(line, soft_wrap=True)
    of = "Report on the newer plan" if results.get("overtaken") else "Report"
    console.print(f"{of}: {folder / 'report.html'}", soft_wrap=True)
