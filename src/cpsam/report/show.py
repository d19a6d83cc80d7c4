"""Results as a notebook and a terminal show them: the answer, what belongs to it, and the table."""

from cpsam.report.answer import answer, control_words
from cpsam.report.remarks import remarks
from cpsam.report.results import Results
from cpsam.report.table import Table, arms_table
from cpsam.report.templates import template
from cpsam.text import printable


def results_text(results: Results) -> str:
    """Returns the answer, the best control, remarks, and one table per setting as plain text."""
    said = [answer(results), *control_words(results), *remarks(results)]
    tables = [f"{name}\n{table}" if name else str(table) for name, table in tables_of(results)]
    return "\n\n".join(["\n".join(map(printable, said)), *tables])


def results_html(results: Results) -> str:
    """Returns the same as HTML that loads nothing. All text is escaped."""
    return template("results.html.j2").render(
        answer=answer(results),
        said=[*control_words(results), *remarks(results)],
        tables=tables_of(results),
    )


def tables_of(results: Results) -> list[tuple[str, Table]]:
    """Returns the name and the table of each setting; the only one needs no name."""
    if not results.has_settings:
        return [("", arms_table(results))]
    return [(each.name, arms_table(results, each.name)) for each in results.settings]
