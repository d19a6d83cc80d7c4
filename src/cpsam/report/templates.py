"""The Jinja2 templates of this room."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cpsam.report.svg import safe


@cache
def template(name: str) -> Template:
    """Returns a template. It escapes all text, and writes characters that do not print as escapes.
    A name that is missing is an error.
    """
    return Environment(
        loader=PackageLoader("cpsam.report", ""),
        autoescape=True,
        finalize=safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)
