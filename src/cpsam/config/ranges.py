"""Names the types of numbers that several settings have, with their ranges."""

from typing import Annotated

from cpsam.typed import Range

MOST_SEED = 2**63 - 1
MOST_RUNS_AT_ONCE = 1024
MOST_THREADS = 1024  # torch crashes when it is asked for a hundred thousand.

AtLeastZero = Annotated[float, Range(least=0)]
Count = Annotated[int, Range(least=1, most=1_000_000)]
Fraction = Annotated[float, Range(least=0, below=1)]
Seed = Annotated[int, Range(least=0, most=MOST_SEED)]
RunsAtOnce = Annotated[int, Range(least=0, most=MOST_RUNS_AT_ONCE)]
Threads = Annotated[int, Range(least=0, most=MOST_THREADS)]
