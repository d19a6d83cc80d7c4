"""The library names arguments, and the command line shows options: one function, for all flags."""

import ast
import re
from pathlib import Path

import pytest

import cpsam
from cpsam.cli import VERBS, main
from cpsam.cli.flags import Flag
from cpsam.cli.translate import ALIASES, with_options

FLAGS = [
    pytest.param(verb, flag, id=f"{name} {flag.name}")
    for name in VERBS
    for verb in [__import__(f"cpsam.cli.{name}", fromlist=["VERB"]).VERB]
    for flag in verb.flags.values()
    if not flag.positional
]


@pytest.mark.parametrize(("verb", "flag"), FLAGS)
def test_each_argument_becomes_its_option(verb, flag: Flag) -> None:
    name, option = flag.name, flag.option

    def shown(message: str) -> str:
        return with_options(message, verb.flags)

    assert option == "--" + name.replace("_", "-")
    assert shown(f"{name} must be above 0; got -1") == f"{option} must be above 0; got -1"
    assert shown(f"x: {name} must be above 0") == f"x: {option} must be above 0"
    assert (
        shown(f"a folder, with `{name}` or CPSAM_DATA") == f"a folder, with {option} or CPSAM_DATA"
    )
    if flag.kind is bool:
        off = option.replace("--", "--no-", 1)
        assert shown(f"ask with {name}=True, not {name}=False") == f"ask with {option}, not {off}"
    else:
        assert shown(f"ask with {name}=3") == f"ask with {option} 3"
    if "_" in name:
        assert shown(f"the {name} of a run, {name}") == f"the {option} of a run, {option}"
    for other in (
        f"unknown field '{name}'",
        f"/tmp/{name}/{name}.json: it is not there",
        f"{name}.py must be a file",
        f"cpsam:{name}=3,{name}=4 is refused",
        f"my_{name} must be",
        f"{option} must be above 0",
        f"it's 'the {name} must' of Nesterov's",
    ):
        assert shown(other) == other


def test_an_argument_of_another_name_becomes_its_option(capsys) -> None:
    with pytest.raises(SystemExit, match="3"):
        main(["compare", "--data", "folder", "--epochs", "1"])
    assert "name it with --data-root or CPSAM_DATA" in capsys.readouterr().err
    flags = __import__("cpsam.cli.train", fromlist=["VERB"]).VERB.flags
    for argument, name in ALIASES.items():
        assert with_options(f"`{argument}` is missing", flags) == f"{flags[name].option} is missing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --out x --lr -1", "--lr must be a number above 0; got -1"),
        ("train --out x --batch-size 1", "--batch-size must be a whole number"),
        ("compare --threads -1", "--threads must be a whole number"),
        ("compare --validation 2", "--validation must be a number from 0 to below 1"),
        ("cost --in-channels 0", "--in-channels must be a whole number"),
        ("train --out x --color-jitter 2", "--color-jitter must be a number from 0 to 1"),
    ],
)
def test_an_error_of_a_dataclass_names_the_option(capsys, words: str, message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert capsys.readouterr().err.startswith(f"cpsam: {message}")


def test_no_message_of_the_library_names_an_option() -> None:
    root = Path(cpsam.__file__).parent
    files = [path for path in root.rglob("*.py") if "cli" not in path.relative_to(root).parts]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                texts = [
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
                assert not any(re.search(r" --[a-z]", text) for text in texts), (path, texts)
