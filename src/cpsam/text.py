"""Makes text of others (a name, a path, a message) safe to show."""

import reprlib

NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def printable(text: str, keep: str = "") -> str:
    r"""Returns the text with escapes for characters that do not print or change the direction.

    Args:
        text: Any text.
        keep: Characters that stay as they are.

    Example:
        >>> printable("a\x1b]0;title\x07b\u202ec\ud800")
        'a\\x1b]0;title\\x07b\\u202ec\\ud800'
    """
    if text.isprintable():
        return text
    kept = {NO_BREAK_SPACE, *keep}
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode()
        for each in text
    )


def shorten(value: object) -> str:
    """Returns a value as Python writes it, cut where it is long, wide or deep.

    Example:
        >>> shorten(10**99)
        '1000000000000...0000000000000'
    """
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to write a number of more than 4,300 digits.
        return "a number of more than 4,300 digits"
