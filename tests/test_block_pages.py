"""Each block has a page, whose closed forms are true, and tests that its name selects."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpsam.attention import ATTENTION
from cpsam.measure import count_macs, count_parameters

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "blocks"
FORMS = re.compile(r"\\text\{parameters\} = (.*), \\qquad \\text\{MACs per image\} = (.*)")


def test_every_block_has_a_page_and_every_page_a_block() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", *ATTENTION}
    listed = (PAGES / "index.md").read_text().partition("```{toctree}")[2]
    assert [line for line in listed.splitlines() if line in ATTENTION] == list(ATTENTION)


def evaluated(form: str, **letters: int) -> int:
    """Returns the value of a closed form in TeX, in which neighbours are multiplied."""
    words = re.findall(r"\d+|[A-Za-z]|\^|[()+-]", form)
    assert "".join(words) == form.replace(" ", ""), form
    code = ""
    for before, word in zip(["+", *words], words, strict=False):
        times = (word.isalnum() or word == "(") and (before.isalnum() or before == ")")
        power = before == "^"
        code += ("*" if times and not power else "") + {"^": "**"}.get(word, word)
    return eval(code, {"__builtins__": {}}, letters)


@pytest.mark.parametrize("name", ATTENTION)
def test_the_closed_forms_of_a_page_are_true(name: str) -> None:
    found = FORMS.search((PAGES / f"{name}.md").read_text())
    assert found is not None
    for channels, height, width in ((64, 5, 7), (200, 4, 3)):
        given = {"hidden_channels": 11} if name == "conv_control" else {}
        block = ATTENTION[name](channels, **given)
        reduction = getattr(block, "reduction", 1)
        letters = {
            "C": channels,
            "L": height * width,
            "h": given.get("hidden_channels", max(8, channels // reduction)),
            "k": getattr(block, "kernel_size", 0),
        }
        assert evaluated(found[1], **letters) == count_parameters(block)
        assert evaluated(found[2], **letters) == count_macs(block, (1, channels, height, width))


def test_the_name_of_a_block_selects_its_contract() -> None:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    listed = subprocess.run(
        [*words, "tests/attention/test_contract.py", "-k", " or ".join(ATTENTION)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ATTENTION:
        assert f"::test_every_block_passes_the_contract[{name}]" in listed
        page = (PAGES / f"{name}.md").read_text()
        assert f"`pytest -k {name}`" in page and f'insert_attention(model, "{name}")' in page
