"""The command line: one verb a file. Each parses, calls one library function and prints."""

import os
import sys
from contextlib import nullcontext
from importlib import import_module

from cpsam.cli.output import printable_output
from cpsam.cli.stoppable import stoppable
from cpsam.errors import UserError, unknown
from cpsam.study.escape import printable

VERBS = {
    "compare": "train each block with each seed and put accuracy and cost side by side",
    "study": "the same for a plan in a file, of any size, on one machine or many",
    "train": "train one network, with or without attention",
    "eval": "measure a trained run on its data",
    "data": "look at every image of a data set before anything is trained on it",
    "cost": "what an insertion would cost in a network, place by place, before any training",
    "list": "names of blocks, placements, models and data sets",
}

RESUMABLE = ("compare", "study", "train")

USAGE = "usage: cpsam VERB [OPTIONS]\n\n" + "\n".join(f"  {verb:8} {what}" for verb, what in VERBS.items())
USAGE += "\n\ncpsam VERB --help lists the options of a verb.\n"


@printable_output()
def main(arguments: list[str] | None = None) -> None:
    """Run one verb; exits 0 done, 2 usage, 3 data, 4 diverged, 75 stopped and resumable."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        from cpsam import __version__

        print(__version__)
        return
    try:
        if words[0] not in VERBS:
            raise unknown("verb", words[0], VERBS)
        with stoppable() if words[0] in RESUMABLE else nullcontext():
            import_module(f"cpsam.cli.{words[0]}").run(words[1:])
    except UserError as error:
        print(f"cpsam: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has gone, and python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a folder that is a file, a disk that is full or may not be written
        print(f"cpsam: {printable(str(error))}", file=sys.stderr)
        sys.exit(UserError.exit_code)
