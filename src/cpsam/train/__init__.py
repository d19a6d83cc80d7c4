"""Training: what to do (`recipe`, `schedule`), on what (`hardware`), where it is kept (`run_folder`), and the loop itself (`loop`).

Only the recipe is imported here: it needs no torch, so that a command line can build its flags from it at once.
"""

from cpsam.train.recipe import Recipe

__all__ = ["Recipe"]
