"""Training: what to do (`recipe`, `schedule`), on what (`hardware`, `distributed`), where it is
kept (`run_folder`, `saving`), one step (`update`), and the loop of them (`training`), which
`loop.train` begins or continues.

Only the recipe is imported here: it needs no torch, so that a command line can build its flags from
it at once.
"""

from cpsam.config.recipe import Recipe

__all__ = ["Recipe"]
