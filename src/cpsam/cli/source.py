"""Reads our own source without running it: registries, docstrings and what is said of fields."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def summary(text: str | None) -> str:
    """Returns the first paragraph of a docstring as one line."""
    return " ".join((text or "").split("\n\n")[0].split()).replace("``", "")


class Source:
    """The source of a module of ours, read without running it.

    Args:
        tree: What the source says.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.body = tree.body

    @staticmethod
    @cache
    def of(module: str) -> "Source":
        path = ROOT.joinpath(*module.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return Source(ast.parse(file.read_bytes()))

    def entries(self, name: str) -> dict[str, str] | None:
        """Returns the keys of a registry with the summary of each value.

        None: the registry is not written as a plain dictionary or tuple.
        """
        value = self.assigned(name)
        if value is None and (module := self.imported_from(name)):
            return Source.of(module).entries(name)
        if isinstance(value, ast.Dict):
            keys = [self.text(key) for key in value.keys]
            values = [self.docstring(each) for each in value.values]
            return None if None in keys else dict(zip(keys, values, strict=True))  # pyrefly: ignore
        if isinstance(value, ast.Tuple | ast.List):
            found: dict[str, str] = {}
            for each in value.elts:
                if isinstance(each, ast.Starred) and isinstance(each.value, ast.Name):
                    inner = self.entries(each.value.id)
                    if inner is None:
                        return None
                    found |= dict.fromkeys(inner, "")
                elif (text := self.text(each)) is not None:
                    found[text] = ""
                else:
                    return None
            return found
        return None

    def assigned(self, name: str) -> ast.expr | None:
        """Returns the value that a name is set to at the top of the module."""
        for line in self.body:
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", 0)]
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                return getattr(line, "value", None)
        return None

    def docstring(self, value: ast.expr | Any) -> str:
        """Returns the summary of a class or function that is named here, and maybe imported."""
        if not isinstance(value, ast.Name):
            return ""
        for line in self.body:
            if isinstance(line, ast.ClassDef | ast.FunctionDef) and line.name == value.id:
                return summary(ast.get_docstring(line))
        module = self.imported_from(value.id)
        return Source.of(module).docstring(value) if module else ""

    def imported_from(self, name: str) -> str | None:
        """Returns the module of ours from which a name is imported under the same name."""
        for line in self.body:
            if (
                isinstance(line, ast.ImportFrom)
                and (line.module or "").startswith("cpsam.")
                and any(each.name == name and each.asname is None for each in line.names)
            ):
                return line.module
        return None

    @staticmethod
    def text(value: ast.expr | None) -> str | None:
        """Returns a text that is written out; None for anything else."""
        return value.value if isinstance(value, ast.Constant) else None  # pyrefly: ignore

    def fields(self, name: str) -> dict[str, str]:
        """Returns what the class of this name says of its fields.

        It says so in texts below the fields, or under Args or Attributes in its docstring.
        """
        for line in self.body:
            if isinstance(line, ast.ClassDef) and line.name == name:
                said = arguments(ast.get_docstring(line) or "")
                return {key: " ".join(text.split()) for key, text in [*said, *below_fields(line)]}
        return {}


def arguments(docstring: str) -> list[tuple[str, str]]:
    """Returns the names and texts under Args and Attributes in a docstring.

    Example:
        >>> arguments("Adds.\\n\\nArgs:\\n    first: One\\n        number.\\n    second: Two.")
        [('first', 'One\\n        number.'), ('second', 'Two.')]
    """
    parts = re.split(r"^(\w+):\n", docstring, flags=re.MULTILINE)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    return [
        found
        for title, text in sections
        if title in ("Args", "Attributes")
        for found in ARGUMENT.findall(text)
    ]


def below_fields(line: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(line.body, line.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = text.value if isinstance(text, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                yield field.target.id, said.value
