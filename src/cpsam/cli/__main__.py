"""``python -m cpsam.cli``, for where the command is not on the path."""

from cpsam.cli import main

main()
