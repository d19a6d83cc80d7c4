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

# What others call the same thing, and our words for it.
SYNONYMS = {
    "learning_rate": ("lr",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "wd": ("weight_decay",),
    "decay": ("weight_decay",),
    "dataset": ("data",),
    "data_dir": ("data_root",),
    "root": ("data_root",),
    "arch": ("model",),
    "net": ("model",),
    "network": ("model",),
    "block": ("attention",),
    "blocks": ("attention",),
    "arms": ("attention",),
    "place": ("at",),
    "placement": ("at",),
    "output": ("out",),
    "folder": ("out",),
    "img_size": ("image_size",),
    "size": ("image_size",),
    "num_workers": ("workers",),
    "amp": ("precision",),
    "optim": ("optimizer",),
    "opt": ("optimizer",),
    "scheduler": ("schedule",),
    "val": ("validation",),
    "pretrained": ("weights",),
    "checkpoint": ("weights",),
    "test": ("eval",),
    "evaluate": ("eval",),
    "fit": ("train",),
    "run": ("train",),
    "benchmark": ("compare",),
    "flops": ("cost",),
    "ls": ("list",),
    "verify": ("data",),
}


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
    near = nearest(str(given), names)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = (
        names
        if len(names) <= 30
        else [*(near or names[:6]), f"and {len(names) - len(near or names[:6]):,} more"]
    )
    return UserError(f"unknown {kind} {given!r}: {hint}Choices: {', '.join(shown)}")


def nearest(given: str, choices: Iterable[str]) -> list[str]:
    """Returns up to six of the choices, the nearest first; a known synonym comes before all.

    Example:
        >>> nearest("learning_rate", ["lr", "momentum"]), nearest("epoch", ["epochs", "lr"])
        (['lr'], ['epochs'])
    """
    names = list(choices)
    meant = [name for name in SYNONYMS.get(given.lower(), ()) if name in names]
    close = get_close_matches(given, names, n=6, cutoff=0.5)
    return list(dict.fromkeys([*meant, *close]))[:6]
