"""A name that would act on a terminal is text in errors, warnings and output."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.hostile_names import ACTS, NAMES

from cpsam.cli import main
from cpsam.cli.output import Printable

VERBS = (
    ["study"],
    ["eval"],
    ["compare", "--attention"],
    ["cost", "--model"],
    [],
    ["list"],
    ["data", "verify"],
)


GIVEN = [
    (VERBS[index % len(VERBS)], name)
    for index, name in enumerate(NAMES)
    if not name.startswith("-")
]


@pytest.mark.parametrize(("verb", "name"), GIVEN)
def test_an_error_shows_a_name_in_one_line(
    verb: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*verb, name])
    error = capsys.readouterr().err
    assert left.value.code in (2, 3) and error.startswith("cpsam: ")
    assert error.count("\n") == 1 and not ACTS.search(error)


def test_warnings_of_anybody_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Printable(sys.stderr)
    print("a\x1b]0;x\x07", "b\u202e", file=stream)
    stream.writelines(["c\x9b", "\n"])
    assert capsys.readouterr().err == "a\\x1b]0;x\\x07 b\\u202e\nc\\x9b\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_locale_without_our_characters_gets_others(encoding: str, tmp_path: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from cpsam.cli.output import printable_output
        with printable_output():
            from support.whole_study import whole_study
            from cpsam.cli.table import print_results
            print_results(whole_study(), Path("caf\\u00e9\\u4e2d"))
            print("\\u2212\\u4e2d\\u00b1", file=sys.stderr)
    """
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parents[1])],
        capture_output=True,
        env=environment,
        check=True,
    )
    shown, said = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert (
        ("[-0.10" in shown or re.search(r"\[-\d", shown))
        if encoding != "utf-8"
        else "\N{MINUS SIGN}" in shown
    )
    assert said.split() == [
        {"utf-8": "\N{MINUS SIGN}\u4e2d\u00b1", "latin-1": "-?\u00b1", "ascii": "-?+-"}[encoding]
    ]
