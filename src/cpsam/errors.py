"""Mistakes that a person can mend, each with the exit code that the command line answers."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches

# On these a run stops at a step, and the same command continues it. Terminals and batch systems
# send them before they kill.
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


class UserError(ValueError):
    """What was asked for cannot be done as asked: a name, an argument or a run folder does not fit.
    Exit code 2.
    """

    exit_code = 2


class DataError(UserError):
    """A data set is missing, damaged, or not what it says it is. Exit code 3."""

    exit_code = 3


class DivergedError(UserError):
    """A loss or a gradient stopped being finite. Exit code 4."""

    exit_code = 4


class StoppedError(UserError):
    """Work was interrupted and the same command continues it. Exit code 75."""

    exit_code = 75


def unknown(kind: str, given: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is not one of `choices`: names the kind, what was given, the
    nearest match and the choices.

    Of more than thirty choices the nearest are named, and the number of the others.

    Example:
        >>> print(unknown("model", "resnet21", ["resnet20", "vgg"]))
        unknown model 'resnet21': did you mean 'resnet20'? Choices: resnet20, vgg
    """
    names = sorted(choices)
    near = get_close_matches(str(given), names, n=6, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = (
        names
        if len(names) <= 30
        else [*(near or names[:6]), f"and {len(names) - len(near or names[:6]):,} more"]
    )
    return UserError(f"unknown {kind} {given!r}: {hint}Choices: {', '.join(shown)}")
