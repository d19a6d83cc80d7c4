"""Documents are written in short sentences, one per line."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_WORDS = 25
CODE = re.compile(r"^(```|\$\$).*?^\1$", re.S | re.M)
GENERATED = re.compile(r"<!-- \w+: .*?<!-- end -->", re.S)
END = re.compile(r"(?<=[.!?:])(?:\s*\n\s*|\s+(?=[A-Z`*(\[]))")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "blocks").glob("*.md"))


def lines(page: str) -> list[str]:
    """Returns the lines of prose: no code, no tables, no headings, nothing that is generated."""
    prose = GENERATED.sub("", CODE.sub("", page)).splitlines()
    return [line for line in prose if not line.lstrip().startswith(("|", "#", "<!--", ">"))]


def sentences(page: str) -> list[str]:
    """Returns the sentences; a code span counts as one word."""
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines(page)))
    found = []
    for paragraph in paragraphs:
        text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "", paragraph)
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "Code", text))
        found += END.split(text.strip())
    return found


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_sentence_is_longer_than_25_words(path: Path) -> None:
    longest = max(sentences(path.read_text()), key=words, default="")
    assert words(longest) <= MOST_WORDS, longest


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_line_holds_one_sentence(path: Path) -> None:
    stop = re.compile(r"[a-z`)\]][.!?] +[A-Z`\[]")
    double = [line for line in lines(path.read_text()) if stop.search(line)]
    assert not double, double[0]


def test_long_and_double_sentences_are_found() -> None:
    page = (
        f"One `two three` word.\nShort. Double.\n\n- {'word ' * 26}.\n\n```\n{'code ' * 30}\n```\n"
    )
    assert max(map(words, sentences(page))) == 26
    assert [words(each) for each in sentences(page)][:2] == [3, 1]
