"""The command line, with one file per verb. Each parses, calls one library function and prints."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from cpsam.cli.messages import fill_closed_descriptors, safe_messages
from cpsam.cli.output import printable_output
from cpsam.cli.stoppable import stoppable
from cpsam.errors import CpsamError, UserError, unknown

VERBS = {
    "compare": "train each block with each seed, and print accuracy and cost side by side",
    "study": "the same for a plan in a file, of any size, on one machine or many",
    "train": "train one network, with or without attention",
    "eval": "measure a trained run on its data",
    "data": "check every image of a data set before anything is trained on it",
    "cost": "print what an insertion adds to a network, place by place",
    "field": "print what part of an image each place of a network sees",
    "list": "list the names of blocks, placements, models, data sets and presets",
    "completion": "print a script that lets your shell complete all this",
}
RESUMABLE = ("compare", "study", "train")
INTERRUPTED = 130
USAGE = f"""usage: cpsam VERB [OPTIONS]

{chr(10).join(f"  {verb:10} {what}" for verb, what in VERBS.items())}
  help       print the options of a verb: cpsam help VERB
  version    print the version

Begin with: cpsam compare
"""


def main(arguments: list[str] | None = None) -> None:
    """Runs one verb and exits with its code.

    The codes are 0 done, 2 usage, 3 data, 4 diverged, 75 stopped and resumable, 130 interrupted.

    Args:
        arguments: The verb and its options. None: those of the process, which ends afterwards.
    """
    program = arguments is None
    words = sys.argv[1:] if arguments is None else arguments
    if program:
        fill_closed_descriptors()
    with safe_messages(), printable_output():
        try:
            with stoppable(bool(words) and words[0] in RESUMABLE, program) as check:
                answer(words, check)
        except CpsamError as error:
            fail(in_options(error, words), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        # The reader of our output has ended. Python would fail again when it flushes at exit.
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        # For example a folder that is a file, or a full disk.
        except OSError as error:
            fail(error, UserError.exit_code)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            fail(
                f"not enough memory ({str(error).partition(chr(10))[0] or type(error).__name__})",
                UserError.exit_code,
            )


def answer(words: list[str], check: Callable[[], None]) -> None:
    """Runs the verb, or prints what there is."""
    first, *rest = words or [""]
    if first in ("", "-h", "--help", "--help-all") or (first == "help" and not rest):
        print(USAGE, end="")
        sys.exit(0 if first else 2)
    if first in ("version", "--version"):
        from cpsam import __version__

        print(__version__)
        return
    if first == "help":
        first, *rest = [*rest, "--help"]
    if first not in VERBS:
        raise unknown("verb", first, [*VERBS, "help", "version"])
    verb = import_module(f"cpsam.cli.{first}")
    check()
    verb.run(rest)


def in_options(error: CpsamError, words: list[str]) -> str:
    """Returns the message of an error with options in place of the library's arguments."""
    verb = getattr(sys.modules.get(f"cpsam.cli.{words[0]}") if words else None, "VERB", None)
    if verb is None:
        return str(error)
    from cpsam.cli.translate import with_options

    return with_options(str(error), verb.flags)


def fail(reason: object, code: int) -> NoReturn:
    print(f"cpsam: {' '.join(str(reason).splitlines())}", file=sys.stderr)
    sys.exit(code)


def out_of_memory(error: BaseException) -> bool:
    """Returns whether memory ran out, in Python, or in torch on a CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
    )
