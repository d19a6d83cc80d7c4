"""Laws of other uses of a block: copies, traces, compilers and exports."""

import copy
import importlib.util
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cpsam.testing.case import FIVE_SHAPES, IMAGES, Case, noise, require, require_close, trying

SAME_MATHS = 1e-5  # float32, where a compiler may reorder


@contextmanager
def quiet() -> Iterator[None]:
    """Ignores what a tool warns of itself, such as its deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def agree(case: Case, block: nn.Module, other: Callable[[Tensor], Tensor], what: str) -> None:
    """Requires that `other` computes what `block` does, at sizes of all kinds."""
    for size in (*FIVE_SHAPES, (1, *IMAGES[1:])):
        x = noise(size, "agree", dtype=torch.float32)
        require_close(other(x), case.run(block, x), SAME_MATHS, f"{what} at {size}")


def numbers(block: nn.Module) -> dict[str, int | float]:
    """Returns the plain numbers that the modules of a block hold as attributes."""
    return {
        f"{path}.{key}".removeprefix("."): value
        for path, module in block.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float) and key != "training"
    }


def train_a_step(case: Case, block: nn.Module) -> None:
    """Takes a step of gradient descent, and then a forward in eval mode."""
    x = noise(IMAGES, "step", dtype=torch.float32).requires_grad_(True)
    case.run(block.train(), x).square().mean().backward()
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
        copy.deepcopy(block)
        case.run(block.eval(), x)
    block.zero_grad(set_to_none=True)


def require_copies_after_training(case: Case) -> None:
    block = case.block(dtype=torch.float32)
    train_a_step(case, block)
    before, length = numbers(block), len(pickle.dumps(block))
    for _ in range(2):
        train_a_step(case, block)
    grown = len(pickle.dumps(block)) - length
    require(
        grown < 64,
        f"its pickle grows by {grown} bytes over two training steps on images of one size",
    )
    new, trained = case.new(), block.state_dict()
    late = [name for name in trained if name not in new.state_dict()]
    require(not late, f"after a training step its state dict has {', '.join(late)} too")
    new.load_state_dict(trained)
    reloaded = numbers(new)
    lost = [
        name
        for name, value in numbers(block).items()
        if value != before.get(name) and value != reloaded.get(name)
    ]
    require(
        not lost,
        f"training moves the plain number {', '.join(lost)}, which the state dict does not hold;"
        " keep it in a buffer",
    )
    pickled = pickle.loads(pickle.dumps(block))  # noqa: S301
    others = {
        "a deep copy": copy.deepcopy(block),
        "a pickle": pickled,
        "a new block with the same state dict": new,
    }
    x = noise(IMAGES, "trained", dtype=torch.float32)
    for training in (False, True):
        expected = None
        for what, other in {"the block": block, **others}.items():
            torch.manual_seed(0)
            y = case.run(other.train(training), x)
            expected = y if expected is None else expected
            mode = "training" if training else "eval"
            require_close(
                y,
                expected,
                SAME_MATHS,
                f"{what} after three training steps, at {IMAGES} in {mode} mode",
            )


def copies(case: Case) -> None:
    """A deep copy, a pickle and a new block with the same state dict compute the same, before
    training and after.
    """
    block = case.block(dtype=torch.float32)
    agree(case, block, copy.deepcopy(block), "a deep copy")
    agree(case, block, pickle.loads(pickle.dumps(block)), "a pickle")  # noqa: S301
    loaded = case.new().eval()
    loaded.load_state_dict(block.state_dict())
    agree(case, block, loaded, "a new block with the same state dict")
    with trying("a copy after a training step:"):
        require_copies_after_training(case)


def fx(case: Case) -> None:
    """torch.fx traces it, for every size."""
    block = case.block(dtype=torch.float32)
    agree(case, block, torch.fx.symbolic_trace(block), "the trace")


def script(case: Case) -> None:
    """TorchScript compiles it, for every size."""
    block = case.block(dtype=torch.float32)
    with quiet():
        agree(case, block, torch.jit.script(block), "the script")


def compile(case: Case) -> None:
    """torch.compile takes it whole, with at most two recompilations over five sizes."""
    block = case.block(dtype=torch.float32)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    with quiet(), torch.no_grad():
        for size in FIVE_SHAPES:
            x = noise(size, "compile", dtype=torch.float32)
            require_close(
                compiled(x), case.run(block, x), SAME_MATHS, f"the compiled block at {size}"
            )
    require(
        len(graphs) <= 3,
        f"{len(graphs) - 1} recompilations over {len(FIVE_SHAPES)} sizes; 2 are allowed",
    )


def exported(case: Case, block: nn.Module, strict: bool) -> torch.export.ExportedProgram:
    """Exports a block of a case; the same export is made once."""
    key = f"{case}, strict={strict}"
    if key not in case.exports:
        dynamic = torch.export.Dim.DYNAMIC
        with quiet():
            case.exports[key] = torch.export.export(
                block,
                (noise(IMAGES, dtype=torch.float32),),
                strict=strict,
                dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            )
    return case.exports[key]


def export(case: Case) -> None:
    """torch.export takes it, strict and not, with dynamic numbers of images, rows and columns."""
    block = case.block(dtype=torch.float32)
    for strict in (False, True):
        agree(case, block, exported(case, block, strict).module(), f"the export, strict={strict},")


def onnx(case: Case) -> None:
    """ONNX takes it with dynamic numbers of images, rows and columns. Tried where onnxruntime and
    onnxscript are installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnxscript")):
        return
    import onnxruntime

    block = case.block(dtype=torch.float32)
    with quiet():
        program = torch.onnx.export(exported(case, block, False), dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    agree(
        case,
        block,
        lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]),
        "onnxruntime",
    )
