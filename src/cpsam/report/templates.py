"""The Jinja2 templates of this room."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cpsam.report.escape import html


@cache
def template(name: str) -> Template:
    """Returns a template that escapes all text; a missing name is an error."""
    return Environment(
        loader=PackageLoader("cpsam.report", ""),
        autoescape=True,
        finalize=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)
