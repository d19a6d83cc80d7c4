"""How much is measured: on a GPU, and in the few seconds in which a CPU tests these files."""

from dataclasses import dataclass

from compared_blocks import SHAPES

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Holds the sizes of all parts.

    Attributes:
        shapes: Inputs of the blocks, the most important first.
        rounds: How often each block and each way to train is measured.
        milliseconds: How long one measurement of a block lasts at least.
        backend: What compiles the blocks.
        model: The network that is trained.
        batches: Batch sizes.
        images: Images per epoch of our loop, at most.
        epochs: Epochs per measurement of our loop, after one that warms up.
        steps: Steps per measurement of a script.
        warmup: Steps of a script before that.
        workers: Loading processes of a script.
        at_once: Numbers of runs that share the device.
        seeds: Seeds of the two arms that are run at once.
        tests: Where the tests are.
    """

    shapes: tuple[Shape, ...] = (SHAPES[2], SHAPES[1], SHAPES[3], SHAPES[0], (4, 256, 128, 128))
    rounds: int = 7
    milliseconds: float = 4.0
    backend: str = "inductor"
    model: str = "resnet20"
    batches: tuple[int, ...] = (128, 1024)
    images: int = 20_000
    epochs: int = 5
    steps: int = 50
    warmup: int = 20
    workers: int = 8
    at_once: tuple[int, ...] = (1, 8, 4, 2)
    seeds: int = 4
    tests: str = "tests"


ON_GPU = Sizes()
ON_CPU = Sizes(
    shapes=((2, 16, 5, 7),),
    rounds=2,
    milliseconds=0.1,
    backend="eager",
    model="resnet8",
    batches=(16,),
    images=32,
    epochs=1,
    steps=2,
    warmup=1,
    workers=0,
    at_once=(1, 2),
    seeds=1,
    tests="tests/test_seeds.py",
)
