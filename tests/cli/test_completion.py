"""A shell completes verbs, options and names, from a script that starts no Python."""

import shutil
import subprocess
import sys

import pytest

from cpsam.cli import VERBS
from cpsam.cli.completion import SHELLS, bash_script, fish_script, flags, options, zsh_script

CASES = {
    "tr": "train",
    "he": "help",
    "help co": "compare cost completion",
    "train --da": "--data --data-root",
    "train --no-au": "--no-augment",
    "train --data ci": "cifar10 cifar100",
    "train --optimizer ": "sgd momentum adamw",
    "train --out ": "",
    "compare --attention none cp": "cpsam",
    "compare --attention none,cp": "none,cpsam",
    "compare --attention = cp": "cpsam",
    "cost --at before": "before-last",
    "study plan.toml --ex": "--executor",
    "data ver": "verify",
    "list at": "attention",
    "completion ": "bash zsh fish",
}


def test_bash_completes() -> None:
    script = f"""
        source <({sys.executable} -m cpsam.cli completion bash)
        complete_words() {{
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _cpsam
            echo "${{COMPREPLY[*]}}"
        }}
        complete -p cpsam
    """
    tries = "\n".join(
        f"complete_words cpsam {line}" + ("''" if line.endswith(" ") else "") for line in CASES
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script + tries], capture_output=True, text=True, check=True
    )
    registered, *found = done.stdout.splitlines()
    assert registered.endswith("-F _cpsam cpsam") and done.stderr == ""
    assert dict(zip(CASES, found, strict=True)) == CASES


def test_each_verb_and_each_option_is_in_the_script() -> None:
    bash, fish = bash_script(), fish_script()
    assert zsh_script().endswith(bash)
    for verb in VERBS:
        (line,) = [line for line in bash.splitlines() if line.startswith(f"            {verb}) ")]
        for name in [name for flag in flags(verb) for name in options(flag)]:
            assert f"{name} " in line
            assert f"from {verb}' -l {name[2:]} " in fish


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_the_script(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell]()
    subprocess.run([shell, "-n"], input=script, text=True, check=True)
