"""The page that a comparison leaves: one HTML file that loads nothing, for a screen, a phone or
paper.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from cpsam.errors import UserError
from cpsam.report.figures import (
    contrast_plot,
    cost_plot,
    curve_plot,
    difference_plot,
    measured,
    seed_plot,
)
from cpsam.report.markup import Markup, element
from cpsam.report.table import (
    FAILED_HEADER,
    MISSING,
    answer,
    arms_in,
    bare,
    contrast_rows,
    datasets_of,
    failed_runs,
    made_by,
    percent,
    references_of,
    settings_of,
    subject,
    table_rows,
)
from cpsam.report.words import (
    blocks,
    control_words,
    data_notes,
    duration,
    evidence_words,
    facts_words,
    protocol,
    remarks,
    unbroken,
    words,
)

__all__ = ["render_report", "table_rows"]

SCHEMA = 1


def definitions(pairs: Mapping[str, object]) -> Markup:
    return element(
        "dl", ((element("dt", key), element("dd", words(value))) for key, value in pairs.items())
    )


def head(title: str) -> Markup:
    style = files("cpsam.report").joinpath("report.css").read_text(encoding="utf-8")
    # Nothing may be loaded, run or sent, and no style but ours applies: a name that slipped through
    # as markup could still do nothing.
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
    what = f"cpsam study {results['name']}" if results.get("name") else "cpsam compare"
    return element(
        "header",
        element("p", f"{what}: {subject(results)}", class_="eyebrow"),
        element("h1", unbroken(answer(results))),
        [element("p", unbroken(sentence), class_="control") for sentence in control_words(results)],
        element(
            "p",
            " ".join([*map(unbroken, evidence_words(results)), facts_words(results)]),
            class_="lead",
        ),
        [element("p", note, class_="callout") for note in data_notes(results)],
        [element("p", warning, class_="warning") for warning in remarks(results)],
    )


def questions(results: Mapping[str, Any]) -> Markup | None:
    """The contrasts: a picture and a table."""
    if len(results.get("contrasts", ())) < 2:
        return None
    header, rows = contrast_rows(results)
    explained = {
        "p, Holm": (
            "Holm's adjustment is for the others together, so that it is a one in twenty chance"
            " that any of them is found without being there."
        ),
        "p, sign flips": "The exact sign-flip test is a check; it assumes less, and finds less.",
        "could be found, points": (
            "The last column is the true difference that would be found four times in five."
        ),
    }
    caption = [
        "The first row is the question that the study is for.",
        *(explained[column] for column in header if column in explained),
    ]
    table = plain_table(" ".join(caption), header, rows)
    plot, title = (
        contrast_plot(results),
        "Mean and 95 % interval, seeds paired, not adjusted for their number.",
    )
    picture = (
        element("figure", element("figcaption", "Differences", element("span", title)), plot)
        if plot
        else None
    )
    return element(
        "section",
        element("h2", "The questions, as written in the plan"),
        element("div", picture, table, class_="questions" if picture else "questions alone"),
        id="questions",
    )


def setting_section(results: Mapping[str, Any], setting: Mapping[str, Any]) -> Markup:
    """Table and pictures of one setting; a comparison of one alone needs no heading."""
    only = len(settings_of(results)) == 1
    heading = (
        None
        if only
        else element(
            "h2", f"{setting['name']}: {setting['model']}, blocks at {words(setting['at'])}"
        )
    )
    name = None if only else setting["name"]
    # while the others run, one is no picture of them
    enough = len(measured(results, name)) >= min(2, len(arms_in(results, name)))
    drawn = (
        [element("h2" if only else "h3", "Accuracy and cost"), figures(results, name)]
        if enough
        else None
    )
    return element("section", heading, comparison(results, name, setting), drawn, class_="setting")


def comparison(results: Mapping[str, Any], name: str | None, setting: Mapping[str, Any]) -> Markup:
    header, rows = table_rows(results, name)
    split = setting["data"].get("measured_on", "test split")
    caption = (
        "Top-1 is the mean over n seeds ± sample standard deviation, after the last epoch, on the"
        f" {split}. A difference pairs the seeds; in brackets its 95 % t-interval. MACs are"
        " multiply-adds of one image; milliseconds are the median of a batch, in brackets the"
        " quartiles, timed in turn with the other arms."
    )
    body = []
    # A style sheet that turns rows into cards takes the meaning of a table away from them; the
    # roles give it back.
    primary = bare(results, results["primary"][0])
    for arm, *cells in rows:
        lines = (
            element("td", cell, role="cell", data_label=label)
            for label, cell in zip(header[1:], cells, strict=True)
        )
        kind = "primary" if arm == primary else None
        body.append(
            element(
                "tr",
                element("th", arm, scope="row", role="rowheader"),
                lines,
                role="row",
                class_=kind,
            )
        )
    columns = element(
        "tr",
        (element("th", label, scope="col", role="columnheader") for label in header),
        role="row",
    )
    table = element(
        "table",
        element("caption", caption),
        element("thead", columns, role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        role="table",
    )
    return element(
        "section", table, class_="comparison", aria_label=f"Comparison {name or ''}".strip()
    )


def figures(results: Mapping[str, Any], setting: str | None) -> Markup:
    timing = results.get("timing") or {}
    arms, records = arms_in(results, setting), timing.get("arms", {})
    memory = {name: record.get("peak_memory_bytes") for name, record in records.items()}
    costs: dict[str, dict[str, float | None]] = {
        "parameters added": {arm["name"]: arm["parameters_added"] for arm in arms},
        "MACs added": {arm["name"]: arm["macs_added"] for arm in arms},
        f"ms a batch of {timing.get('batch_size')}": {
            name: (record.get("latency_ms") or {}).get("median") for name, record in records.items()
        },
        f"MiB to train on {timing.get('memory_batch_size')} images": {
            name: bytes_ / 2**20 for name, bytes_ in memory.items() if bytes_ is not None
        },
    }
    dots = (
        "A dot is a run, the bar their mean; dashed: what nothing as cheap beats. Columns that"
        " would cover each other stand apart."
    )
    plots = [
        (
            f"Difference to {name}",
            "Mean and 95 % interval, seeds paired.",
            difference_plot(results, name, setting),
        )
        for name in references_of(results, setting)[:1]
    ]
    plots += [
        (f"Accuracy against {what}", dots, cost_plot(results, what, by_arm, setting))
        for what, by_arm in costs.items()
    ]
    threads = "A dot is a run, the bar their mean; a thin line joins the runs of one seed."
    bands = (
        "Mean over the seeds in a band from the lowest to the highest. The height fits the second"
        " half of the epochs."
    )
    if any(
        run["status"] != "done" and (run.get("curve") or {}).get("top1")
        for arm in arms
        for run in arm["runs"]
    ):
        bands += " Dashed: a run that broke off."
    plots += [("Every seed", threads, seed_plot(results, setting))]
    plots += [
        (title, bands, curve_plot(results, setting, key))
        for title, key in (("Learning", "top1"), ("Fitting", "train_loss"))
    ]
    shown = (
        element("figure", element("figcaption", title, element("span", how)), plot)
        for title, how, plot in plots
        if plot
    )
    return element("section", shown, class_="plots", aria_label=f"Pictures {setting or ''}".strip())


def plain_table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], wide: Sequence[int] = ()
) -> Markup:
    """A table that scrolls sideways on a phone; the columns numbered in `wide` break their lines
    instead.
    """
    body = [
        element(
            "tr",
            (
                element("td", cell, class_="wrap" if index in wide else None)
                for index, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    columns = element(
        "tr",
        (
            element("th", label, scope="col", class_="wrap" if index in wide else None)
            for index, label in enumerate(header)
        ),
    )
    table = element(
        "table", element("caption", caption), element("thead", columns), element("tbody", body)
    )
    return element(
        "div", table, class_="scroll plain", tabindex=0, role="region", aria_label=caption
    )


def failures(results: Mapping[str, Any]) -> Markup | None:
    rows = failed_runs(results)
    if not rows:
        return None
    caption = (
        "These runs are in no mean and no difference; a pair that lacks one of its runs is left"
        " out."
    )
    table = plain_table(caption, FAILED_HEADER, rows, wide=(3,))
    return element(
        "section",
        element("h2", "Runs that did not finish"),
        element("div", table, class_="failures"),
    )


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
    return element(
        "details",
        element("summary", "Every run"),
        plain_table("One line a run, as its folder has it.", header, rows),
    )


def loss_words(loss: float | None) -> str:
    return MISSING if loss is None else f"{loss:.4f}"


def provenance(results: Mapping[str, Any]) -> Markup:
    environment = dict(results.get("environment") or {})
    total = (results.get("timing") or {}).get("total_seconds")
    machine = {
        **environment,
        "data fingerprint": [data.get("fingerprint") for data in datasets_of(results)],
        **({"took": duration(total)} if total is not None else {}),
    }
    recipe = results.get("recipe") or {}
    runs = {"made by": "; ".join(made_by(results))} if made_by(results) else {}
    sections = [("Protocol", protocol(results)), ("Recipe", recipe), ("Runs", runs)]
    sections += [("Environment of this page", machine), ("Blocks", blocks(results))]
    return element(
        "div",
        element("h2", "The command that made this page"),
        element("pre", element("code", results["command"])),
        element(
            "div",
            (
                element("section", element("h2", title), definitions(pairs))
                for title, pairs in sections
                if pairs
            ),
            class_="columns",
        ),
    )


def render_report(results: Mapping[str, Any]) -> str:
    """The page of a comparison.

    The answer comes first, in one sentence, then the table, the pictures, what failed, and how to
    make it again. All text of `results` is escaped.

    Args:
        results: What the study wrote, ``schema`` 1.

    Returns:
        A whole HTML document. It needs no network and no script, and follows the light or dark mode
        of its reader.

    Raises:
        UserError: If the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise UserError(f"a report reads results of schema {SCHEMA}; got {results.get('schema')!r}")
    main = element(
        "main",
        opening(results),
        questions(results),
        [setting_section(results, setting) for setting in settings_of(results)],
        (
            element("ul", (element("li", note) for note in results["notes"]), class_="notes")
            if results.get("notes")
            else None
        ),
        failures(results),
        provenance(results),
        every_run(results),
    )
    return (
        "<!doctype html>\n"
        + element("html", head(subject(results)), element("body", main), lang="en")
        + "\n"
    )
