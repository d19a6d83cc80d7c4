"""Training: `train.py` holds the call, `loop.py` the loop, `step.py` one step, `checkpointing.py`
what survives the process. A run is kept in a run folder (`run_folder.py`).

Only the recipe is imported here: it needs no torch, so a command line can build its flags at once.
"""

from cpsam.config.recipe import Recipe

__all__ = ["Recipe"]
