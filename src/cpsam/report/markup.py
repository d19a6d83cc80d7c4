"""HTML and SVG as nested calls. What is not markup already is escaped, so that no name, path or
message can become a tag.
"""

from collections.abc import Iterable
from html import escape

from cpsam.text import printable

VOID = ("meta", "br")  # HTML elements without an end tag


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def render(child: object) -> str:
    """Markup as it is, None as nothing, a collection item by item, and everything else as escaped
    text.
    """
    if isinstance(child, Markup):
        return child
    if child is None:
        return ""
    if isinstance(child, Iterable) and not isinstance(child, str):
        return "".join(map(render, child))
    return escape(printable(str(child)))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: Its tag.
        children: What it holds; see :func:`render`.
        attributes: An underscore in a name stands for a hyphen, one at its end for nothing
            (``class_``); a value of None leaves it out.

    Example:
        >>> element("p", "1 < 2 ", element("b", "&"), class_="note", id=None)
        '<p class="note">1 &lt; 2 <b>&amp;</b></p>'
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{pairs}>")
    return Markup(f"<{name}{pairs}>{render(children)}</{name}>")
