"""``cpsam completion``: a script that lets a shell complete verbs, options and names.

The script holds all words itself, so that the shell starts no Python when it completes.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from cpsam.cli import VERBS
from cpsam.cli.flags import Flag, option
from cpsam.cli.names import registry
from cpsam.cli.verb import Verb
from cpsam.errors import unknown

SHELLS = ("bash", "zsh", "fish")
NAMES = {"data": "data", "model": "models", "attention": "attention", "at": "placements"}
OTHER_VERBS = ("help", "version")


@dataclass(frozen=True)
class CompletionRequest:
    shell: str = field(metadata={"positional": True, "choices": SHELLS})
    """The shell that reads the script: bash, zsh or fish."""


VERB = Verb(
    "completion",
    CompletionRequest,
    "Print a script that lets a shell complete verbs, options and names.",
    {
        "bash; write this into ~/.bashrc": "source <(cpsam completion bash)",
        "zsh; write this into ~/.zshrc": "source <(cpsam completion zsh)",
        "fish; write this into ~/.config/fish/config.fish": "cpsam completion fish | source",
    },
    first=(),
)


def run(words: list[str]) -> None:
    shell = VERB.read(words).shell
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell](), end="")


def flags(verb: str) -> list[Flag]:
    return list(import_module(f"cpsam.cli.{verb}").VERB.flags.values())


def options(flag: Flag) -> list[str]:
    """Returns the words that give a flag."""
    if flag.positional:
        return []
    switch_off = flag.kind is bool and flag.default is not False
    return [flag.option, *([option(f"no_{flag.name}")] if switch_off else [])]


def values(flag: Flag) -> list[str]:
    """Returns the values that a shell can offer for a flag."""
    own = ["none"] if flag.name == "attention" else []
    return [*own, *registry(NAMES[flag.name])] if flag.name in NAMES else list(flag.choices)


def joined(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


BASH = """_cpsam() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} flag= words= at
    [ "$word" = "=" ] && word=
    for ((at = COMP_CWORD - 1; at > 1; at--)); do
        case ${{COMP_WORDS[at]}} in --*) flag=${{COMP_WORDS[at]}}; break;; esac
    done
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={verbs}
    elif case $word in -*) true;; *) false;; esac; then
        case $verb in
{options}
        esac
    else
        case "$verb $flag" in
{values}
        esac
    fi
    local before=
    case $word in *,*) before=${{word%,*}},;; esac
    COMPREPLY=($(compgen -P "$before" -W "$words" -- "${{word##*,}}"))
}}
complete -o default -F _cpsam cpsam
"""


# zsh runs the script of bash.
ZSH = """(( $+functions[compdef] )) || { autoload -U +X compinit; compinit; }
autoload -U +X bashcompinit
bashcompinit
"""


def bash_script() -> str:
    option_lines, value_lines = [], []
    for verb in VERBS:
        names = [name for flag in flags(verb) for name in options(flag)]
        option_lines.append(
            f"            {verb}) words={joined([*names, '--help', '--help-all'])};;"
        )
        for flag in flags(verb):
            if offered := values(flag):
                head = flag.option if options(flag) else ""
                value_lines.append(f"            '{verb} {head}') words={joined(offered)};;")
    value_lines.append(f"            'help ') words={joined(VERBS)};;")
    return BASH.format(
        verbs=joined([*VERBS, *OTHER_VERBS]),
        options="\n".join(option_lines),
        values="\n".join(value_lines),
    )


def zsh_script() -> str:
    return ZSH + bash_script()


def fish_script() -> str:
    lines = [
        f"complete -c cpsam -n __fish_use_subcommand -f -a {verb} -d {shlex.quote(about)}"
        for verb, about in VERBS.items()
    ]
    lines += [f"complete -c cpsam -n __fish_use_subcommand -f -a {verb}" for verb in OTHER_VERBS]
    for verb in VERBS:
        when = f"complete -c cpsam -n '__fish_seen_subcommand_from {verb}'"
        for flag in flags(verb):
            offered = f" -a {joined(values(flag))}" if values(flag) else ""
            if flag.positional:
                lines += [f"{when} -f{offered}"] if offered else []
                continue
            takes = "" if flag.kind is bool else " -r" if flag.kind is Path else " -x"
            about = shlex.quote(flag.text.split(". ")[0].rstrip("."))
            for name in options(flag):
                lines.append(f"{when} -l {name[2:]}{takes}{offered} -d {about}")
    return "\n".join(lines) + "\n"
