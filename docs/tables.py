"""Writes the tables of the documents from the results files that the program wrote: ``make tables``. A test fails when one is stale.

In a document, ``<!-- results: FOLDER -->`` and ``<!-- end -->`` enclose what is written from ``FOLDER/results.json``, FOLDER from the root.
"""

import json
import re
from pathlib import Path

from cpsam.study.table import answer, table_rows

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.S)


def table(folder: str) -> str:
    """The table of a comparison in Markdown, the sentence that answers it, and where it was measured."""
    results = json.loads((ROOT / folder / "results.json").read_text())
    header, rows = table_rows(results)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    where = results["environment"]
    notes = " ".join(f"{note.rstrip('.')}." for note in [answer(results), results["data"]["note"], *results["notes"]] if note)
    machine = f"{where['processor']}, {where['threads']} threads, torch {where['versions']['torch']}, {where['precision']}"
    return (
        "".join(f"| {' | '.join(line)} |\n" for line in lines)
        + f"\n{notes}\nMeasured by `{results['command']}`: {machine}, commit {str(where['commit'])[:10]}.\n"
    )


def updated(document: Path) -> str:
    return BLOCK.sub(lambda block: f"{block[1]}{table(block[2])}{block[3]}", document.read_text())


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


if __name__ == "__main__":
    for path in documents():
        path.write_text(updated(path))
