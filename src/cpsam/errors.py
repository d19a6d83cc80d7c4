"""Defines the errors of cpsam, each with its exit code, and the error for an unknown name."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches

# Terminals and batch systems send these before they kill. A run stops after its step, and the same
# command continues it.
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


class CpsamError(Exception):
    """Is the parent of every error that cpsam raises on purpose. Its text is one line."""

    exit_code = 1


class UserError(CpsamError, ValueError):
    """Says that a name, an argument or a run folder does not fit. Exit code 2."""

    exit_code = 2


class DataError(CpsamError):
    """Says that stored data are missing, damaged, or not what they should be. Exit code 3."""

    exit_code = 3


class DivergedError(CpsamError):
    """Says that a loss, a gradient or a weight is not finite. Exit code 4."""

    exit_code = 4


class StoppedError(CpsamError):
    """Says that work was interrupted, and that the same command continues it. Exit code 75."""

    exit_code = 75


def unknown(kind: str, given: object, choices: Iterable[str]) -> UserError:
    """Returns the error for a name that is not one of `choices`.

    It names the kind, what was given, the nearest match and the choices. Of more than thirty
    choices it names the nearest, and the number of the others.

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
