"""The help of each verb: examples that parse, ten flags first, all of them on request."""

import json
import re
import shlex

import pytest

from cpsam import __version__
from cpsam.attention import ATTENTION, argument_names
from cpsam.cli import VERBS, main
from cpsam.cli.parse import HELP

PLACEHOLDERS = re.compile(r"\bSTR\b|\bINT\b|\bFLOAT\b|\{|\}|\[\w+ \[|True|False|\bNone\b|`")


def verb_of(name: str):
    return __import__(f"cpsam.cli.{name}", fromlist=["VERB"]).VERB


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_the_help_shows_two_examples_and_the_flags_that_people_need_first(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    verb, text = verb_of(name), said(capsys, name, "--help")
    assert len(verb.examples) >= 2 and len(verb.first) <= 10
    assert all(command in text for command in verb.examples.values())
    options = re.findall(r"^  (--[a-z-]+)", text, re.M)
    assert options == [verb.flags[flag].option for flag in verb.first]
    assert text == said(capsys, "help", name) == said(capsys, name, "-h")


@pytest.mark.parametrize("name", VERBS)
def test_the_whole_help_has_each_flag_once_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    verb, text = verb_of(name), said(capsys, name, "--help-all")
    assert not PLACEHOLDERS.search(text)
    for flag in verb.flags.values():
        head = flag.option if flag.positional else f"{flag.option} {flag.value}".strip()
        assert len(re.findall(rf"^  {re.escape(head)}(?:, --no-[a-z-]+)?$", text, re.M)) == 1, head
        assert flag.text and text.count("Default: .") == 0
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("  cpsam"))


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_parse(name: str) -> None:
    verb = verb_of(name)
    for example in verb.examples.values():
        for command in re.findall(r"cpsam [^;|>)]+", example):
            _, given, *words = shlex.split(command)
            assert verb_of(given).parse(words)


def test_help_and_version_are_words_too(capsys: pytest.CaptureFixture[str]) -> None:
    usage = said(capsys, "help")
    assert all(f"  {name} " in usage for name in VERBS)
    assert all(said(capsys, word) == usage for word in HELP)
    main(["version"])
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n" * 2
    with pytest.raises(SystemExit, match="2"):
        main(["help", "trian"])
    assert "did you mean 'train'" in capsys.readouterr().err


def test_a_block_shows_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "attention", "cpsam"])
    text = capsys.readouterr().out
    assert "fusion=grouped" in text and "reduction=16" in text and "in_channels" not in text
    assert '"depthwise"' in text and "--attention cpsam:" in text


def test_each_block_says_what_its_arguments_are(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "attention", ",".join(ATTENTION), "--json"])
    found = json.loads(capsys.readouterr().out)["attention"]
    assert list(found) == list(ATTENTION)
    for name, block in found.items():
        assert block["about"] and all(entry["about"] for entry in block["arguments"].values())
        assert {*block["arguments"], "in_channels"} == set(argument_names(ATTENTION[name]))


def test_a_default_is_shown_once_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(said(capsys, "compare", "--help-all").split())
    for words in (
        "--attention NAME … Arms:",
        "Default: none conv_control non_local cpsam. --",
        "a list, not a number of seeds. Default: 0 1 2. --",
        "Default without a preset: 0.0005. --",
        "--augment, --no-augment Crop",
        "Default: on. --",
        "Default: the environment variable CPSAM_DATA. --",
    ):
        assert words in text, words
    assert not re.search(r"Default:[^-]*Default:", text)
