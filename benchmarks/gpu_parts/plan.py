"""All parts, in the order of their importance."""

from functools import partial
from pathlib import Path

from cpsam.data import Dataset
from gpu_parts import block_times, cuda_tests, runs_at_once, training_speed
from gpu_parts.part import Part
from gpu_parts.sizes import Shape, Sizes
from gpu_parts.training_speed import OURS, SCRIPTS, TIMM, Task

ARMS = ("none", "cpsam", "non_local")
# the memory format in which a GPU trains in each precision, then the other one
FORMATS = {
    "bfloat16": ("channels_last", "contiguous"),
    "float32": ("contiguous", "channels_last"),
}


def make_parts(sizes: Sizes, device: str, timm: Path | None, dataset: Dataset | None) -> list[Part]:
    """Returns the parts; without a data set, to be named only."""

    def blocks(
        how: str, seconds: float, dtype: str, memory_format: str, shapes: tuple[Shape, ...]
    ) -> list[Part]:
        return [
            Part(
                f"blocks {how} {dtype} {'x'.join(map(str, shape))} {memory_format}",
                seconds,
                partial(
                    block_times.measure,
                    sizes=sizes,
                    device=device,
                    shape=shape,
                    dtype=dtype,
                    memory_format=memory_format,
                    compiled=how == "compiled",
                ),
            )
            for shape in shapes
        ]

    def training(name: str, seconds: float, arm: str, batch: int, **options) -> Part:
        task = None if dataset is None else Task(dataset, sizes, device, arm, batch, timm)
        given = {"others": {}, "rounds": min(3, sizes.rounds), **options}
        return Part(name, seconds, partial(training_speed.measure, task=task, **given))

    def at_once(count: int) -> Part:
        given = {"sizes": sizes, "device": device, "at_once": count, "weights": weights}
        seconds = 25 + 35 / count
        return Part(f"runs at once {count}", seconds, partial(runs_at_once.measure, **given))

    weights: dict[int, str] = {}
    eager, compiled = partial(blocks, "eager", 5), partial(blocks, "compiled", 50)
    first, shapes, batch = sizes.shapes[:1], sizes.shapes, sizes.batches[0]
    base = f"training none {batch}"
    together = [at_once(count) for count in sizes.at_once]
    return [
        Part("pytest -m cuda", 120, partial(cuda_tests.measure, tests=sizes.tests)),
        *(part for dtype, own in FORMATS.items() for part in eager(dtype, own[0], shapes)),
        *(training(f"training {arm} {batch}", 12 * len(OURS), arm, batch) for arm in ARMS),
        training(f"{base} timm", 45, "none", batch, others=TIMM, rounds=1),
        training(f"{base} scripts", 40, "none", batch, others=SCRIPTS),
        *compiled("bfloat16", FORMATS["bfloat16"][0], first),
        *together[:2],
        *(
            training(f"training {arm} {larger}", 12 * len(OURS), arm, larger)
            for larger in sizes.batches[1:]
            for arm in ARMS
        ),
        *compiled("bfloat16", FORMATS["bfloat16"][0], shapes[1:]),
        *together[2:],
        *(part for dtype, own in FORMATS.items() for part in eager(dtype, own[1], shapes)),
        *compiled("float32", FORMATS["float32"][0], shapes),
    ]
