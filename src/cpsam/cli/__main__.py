"""Runs the command as ``python -m cpsam.cli``, for example below torchrun."""

from cpsam.cli import main

main()
