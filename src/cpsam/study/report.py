"""The page that a comparison leaves: one HTML file that loads nothing, for a screen, a phone or paper."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from cpsam.errors import UserError
from cpsam.study.markup import Markup, element
from cpsam.study.plot import cost_plot, difference_plot
from cpsam.study.table import MISSING, answer, percent, primary_difference, references_of, table_rows

__all__ = ["render_report", "table_rows"]

SCHEMA = 1


def words(value: object) -> str:
    """A value of a configuration as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


def definitions(pairs: Mapping[str, object]) -> Markup:
    return element("dl", ((element("dt", key), element("dd", words(value))) for key, value in pairs.items()))


def unbroken(sentence: str) -> str:
    """A number stays on the line of its unit or its name."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%").replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def head(title: str) -> Markup:
    style = files("cpsam.study").joinpath("report.css").read_text(encoding="utf-8")
    # Nothing may be loaded, run or sent, and no style but ours applies: a name that slipped through as markup could still do nothing.
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )


def opening(results: Mapping[str, Any]) -> Markup:
    data, seeds = results["data"], results["seeds"]
    difference = primary_difference(results) or {}
    p, note = difference.get("p"), difference.get("note")
    fine = [f"Paired t-test p = {p:.2g}."] if p is not None else []
    fine += [f"{note[0].upper()}{note[1:]}."] if note else []
    facts = [
        f"{results['model']} with a block at {words(results['at'])}",
        f"{data['name']}: {data['train_images']:,} images to train on, {data['test_images']:,} to test on, {data['classes']} classes",
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({words(seeds)})",
    ]
    return element(
        "header",
        element("p", f"cpsam compare: {results['primary'][0]} against {results['primary'][1]} on {data['name']}", class_="eyebrow"),
        element("h1", unbroken(answer(results))),
        element("p", " ".join([*fine, "; ".join(facts) + "."]), class_="lead"),
        element("p", data["note"], class_="callout") if data.get("note") else None,
    )


def comparison(results: Mapping[str, Any]) -> Markup:
    header, rows = table_rows(results)
    split = results["data"].get("measured_on", "test split")
    caption = (
        f"Top-1 is the mean over n seeds ± sample standard deviation, after the last epoch, on the {split}. A difference pairs the seeds; "
        "in brackets its 95 % t-interval. MACs are multiply-adds of one image; milliseconds are the median of a batch, in brackets the "
        "quartiles, timed in turn with the other arms."
    )
    body = []
    # A style sheet that turns rows into cards takes the meaning of a table away from them; the roles give it back.
    for name, *cells in rows:
        lines = (element("td", cell, role="cell", data_label=label) for label, cell in zip(header[1:], cells, strict=True))
        kind = "primary" if name == results["primary"][0] else None
        body.append(element("tr", element("th", name, scope="row", role="rowheader"), lines, role="row", class_=kind))
    columns = element("tr", (element("th", label, scope="col", role="columnheader") for label in header), role="row")
    table = element(
        "table",
        element("caption", caption),
        element("thead", columns, role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        role="table",
    )
    return element("section", table, class_="comparison", aria_label="Comparison")


def figures(results: Mapping[str, Any]) -> Markup:
    timing = results.get("timing") or {}
    latency = {name: (record.get("latency_ms") or {}).get("median") for name, record in timing.get("arms", {}).items()}
    costs = {
        "parameters added": {arm["name"]: arm["parameters_added"] for arm in results["arms"]},
        "MACs added": {arm["name"]: arm["macs_added"] for arm in results["arms"]},
        f"ms a batch of {timing.get('batch_size')}": latency,
    }
    dots = "A dot is a run, the bar their mean."
    plots = [
        (f"Difference to {name}", "Mean and 95 % interval, seeds paired.", difference_plot(results, name))
        for name in references_of(results)[:1]
    ]
    plots += [(f"Accuracy against {words}", dots, cost_plot(results, words, by_arm)) for words, by_arm in costs.items()]
    shown = (element("figure", element("figcaption", title, element("span", how)), plot) for title, how, plot in plots if plot)
    return element("section", shown, class_="plots", aria_label="Pictures")


def plain_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], wide: Sequence[int] = ()) -> Markup:
    """A table that scrolls sideways on a phone; the columns numbered in `wide` break their lines instead."""
    body = [
        element("tr", (element("td", cell, class_="wrap" if index in wide else None) for index, cell in enumerate(row))) for row in rows
    ]
    columns = element(
        "tr", (element("th", label, scope="col", class_="wrap" if index in wide else None) for index, label in enumerate(header))
    )
    table = element("table", element("caption", caption), element("thead", columns), element("tbody", body))
    return element("div", table, class_="scroll plain", tabindex=0, role="region", aria_label=caption)


def failures(results: Mapping[str, Any]) -> Markup | None:
    rows = [
        (arm["name"], run["seed"], run["status"], run.get("error") or MISSING)
        for arm in results["arms"]
        for run in arm["runs"]
        if run["status"] != "done"
    ]
    if not rows:
        return None
    caption = "These runs are in no mean and no difference; a pair that lacks one of its runs is left out."
    table = plain_table(caption, ("arm", "seed", "status", "error"), rows, wide=(3,))
    return element("section", element("h2", "Runs that did not finish"), element("div", table, class_="failures"))


def every_run(results: Mapping[str, Any]) -> Markup:
    rows = [
        (
            arm["name"],
            run["seed"],
            run["status"],
            percent(run.get("top1")),
            percent(run.get("top5")),
            loss_words(run.get("loss")),
            run.get("folder"),
        )
        for arm in results["arms"]
        for run in arm["runs"]
    ]
    header = ("arm", "seed", "status", "top-1, %", "top-5, %", "loss", "folder")
    return element("details", element("summary", "Every run"), plain_table("One line a run, as its folder has it.", header, rows))


def loss_words(loss: float | None) -> str:
    return MISSING if loss is None else f"{loss:.4f}"


def provenance(results: Mapping[str, Any]) -> Markup:
    environment = dict(results.get("environment") or {})
    total = (results.get("timing") or {}).get("total_seconds")
    machine = {
        **environment,
        "data fingerprint": results["data"].get("fingerprint"),
        **({"took": duration(total)} if total is not None else {}),
    }
    blocks = {
        arm["name"]: f"{words(arm['arguments']) or 'defaults'}, at {words(arm['places'])}" for arm in results["arms"] if arm["places"]
    }
    sections = [("Recipe", results.get("recipe") or {}), ("Environment", machine), ("Blocks", blocks)]
    return element(
        "div",
        element("h2", "The command that made this page"),
        element("pre", element("code", results["command"])),
        element(
            "div", (element("section", element("h2", title), definitions(pairs)) for title, pairs in sections if pairs), class_="columns"
        ),
    )


def render_report(results: Mapping[str, Any]) -> str:
    """The page of a comparison.

    The answer comes first, in one sentence, then the table, the pictures, what failed, and how to make it again. All text of `results`
    is escaped.

    Args:
        results: What the study wrote, ``schema`` 1.

    Returns:
        A whole HTML document. It needs no network and no script, and follows the light or dark mode of its reader.

    Raises:
        UserError: If the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise UserError(f"a report reads results of schema {SCHEMA}; got {results.get('schema')!r}")
    main = element(
        "main",
        opening(results),
        comparison(results),
        element("ul", (element("li", note) for note in results["notes"]), class_="notes") if results.get("notes") else None,
        element("h2", "Accuracy and cost"),
        figures(results),
        failures(results),
        provenance(results),
        every_run(results),
    )
    name, reference = results["primary"]
    title = f"{name} against {reference} on {results['data']['name']}"
    page = "<!doctype html>\n" + element("html", head(title), element("body", main), lang="en") + "\n"
    return page.encode("utf-8", "replace").decode()  # a path may hold bytes that are not text
