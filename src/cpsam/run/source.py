"""Finds the source of classes and functions, of files and of notebook cells."""

import ast
import linecache
import sysconfig
import textwrap
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")
)


def is_installed_file(path: str) -> bool:
    """Tells whether a file is part of Python or of an installed package."""
    return str(Path(path).resolve()).startswith(INSTALLED)


def undecorated(thing: Any) -> Any:
    """Returns the function in a decorator of an installed package, such as ``torch.no_grad()``.

    The decorator itself stands in the source of the function.
    """
    while (
        isinstance(thing, FunctionType)
        and hasattr(thing, "__wrapped__")
        and is_installed_file(thing.__code__.co_filename)
    ):
        thing = thing.__wrapped__
    return thing


def functions_of(member: Any) -> list[FunctionType]:
    """Returns the functions behind an attribute of a class."""
    found = [getattr(member, "__func__", member)]  # of a static or a class method
    if isinstance(member, property):
        found = [member.fget, member.fset, member.fdel]
    functions = [undecorated(each) for each in found if isinstance(each, FunctionType)]
    return [each for each in functions if each.__code__.co_filename != "<string>"]


def source_of(thing: Any) -> str | None:
    """Returns the source of a class or a function, with its decorators; of a lambda, its own text.

    A class that defines no function gives "": its name and its bases describe it. None: the source
    cannot be read.
    """
    code = code_of(thing)
    if code is None:
        return ""
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    source = "".join(lines)
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if is_source(node, thing, code)]
    except SyntaxError:
        nodes = []
    if not nodes:
        return None
    node: Any = max(nodes, key=first_line)
    if isinstance(node, ast.Lambda):
        return ast.get_source_segment(source, node) or ""
    return textwrap.dedent("".join(lines[first_line(node) - 1 : node.end_lineno])).strip()


def code_of(thing: Any) -> CodeType | None:
    """Returns the code of a function; of a class, that of a function written in it."""
    if isinstance(thing, FunctionType):
        return thing.__code__
    functions = [each for member in vars(thing).values() for each in functions_of(member)]
    inside = f"{thing.__qualname__}."
    return next((each.__code__ for each in functions if each.__qualname__.startswith(inside)), None)


def is_source(node: ast.AST, thing: Any, code: CodeType) -> bool:
    """Tells whether a node of the syntax tree is the source of a class or a function."""
    if isinstance(node, ast.Lambda):
        return thing.__name__ == "<lambda>" and is_code_of(code, node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return (
            node.name == code.co_name == thing.__name__ and first_line(node) == code.co_firstlineno
        )
    return (
        isinstance(node, ast.ClassDef)
        and node.name == thing.__name__
        and first_line(node) <= code.co_firstlineno <= (node.end_lineno or 0)
    )


def first_line(node: Any) -> int:
    """Returns the line on which a definition begins, with its decorators."""
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def is_code_of(code: CodeType, node: ast.Lambda) -> bool:
    """Tells whether the code of a lambda was compiled from this node."""
    body = node.body
    first = (body.lineno, body.col_offset)
    last = (body.end_lineno, body.end_col_offset)
    positions = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and column is not None and end_column
    ]
    return bool(positions) and (
        min(start for start, _ in positions) == first and max(end for _, end in positions) == last
    )
