"""Trains a model and keeps the run in a folder.

`train.py` holds the call, `loop.py` the loop, `step.py` one step, `checkpointing.py` the
checkpoints, and `run_folder.py` the files of a run.

Only the recipe is imported here: it needs no torch, so a command line can build its flags at once.
"""

from cpsam.config.recipe import Recipe

__all__ = ["Recipe"]
