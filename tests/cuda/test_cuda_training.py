"""Training, insertion, distribution and measuring on a GPU."""

import json
import signal

import pytest
import torch
from support import killed_runs, processes
from support.digests import digest
from support.gpu import CPU, GPU, ON_EACH_DEVICE, ON_GPU, ONLY_ON_GPU
from torch.nn.parallel import DistributedDataParallel

from cpsam.config.run_options import RunOptions
from cpsam.data.dataset import Dataset
from cpsam.data.split import Split
from cpsam.errors import StoppedError
from cpsam.insert import insert_attention
from cpsam.measure import forward_step, measure_latency, peak_memory_bytes
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise
from cpsam.train import Recipe
from cpsam.train.train import train

PRECISIONS = ("float32", "bfloat16", "float16")


def network():
    torch.manual_seed(0)
    model = ThinResNet(1, 5)
    insert_attention(model, "cpsam", at=("layer2.0", "layer3.0"))
    insert_attention(model, "non_local", at=("layer1.0", "layer3.0"))
    return model


def pictures(count, seed):
    source = torch.Generator().manual_seed(seed)
    return Split(
        torch.randint(256, (count, 3, 12, 20), generator=source, dtype=torch.uint8),
        torch.randint(5, (count,), generator=source),
    )


DATA = Dataset(
    "noise",
    pictures(29, 1),
    pictures(13, 2),
    tuple("abcde"),
    (0.5,) * 3,
    (0.3,) * 3,
    1,
    True,
    "0123",
)


def run(folder, device, precision, **options):
    model = network()
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05, precision=precision)
    about = {"seed": 5, "folder": folder, "config": {"what": "noise"}, "device": device}
    # torch's fused attention needs deterministic algorithms on a GPU
    train(model, DATA, recipe, **about, options=RunOptions(deterministic=True), **options)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return model.state_dict(), [
        {name: value for name, value in line.items() if name != "timing"} for line in lines
    ]


@pytest.mark.parametrize(
    "device, precision",
    [(CPU, "float32"), *(pytest.param(GPU, name, marks=ON_GPU) for name in PRECISIONS)],
)
def test_two_runs_have_the_same_bits_also_if_one_was_stopped(tmp_path, device, precision):
    def interrupt(event):
        if event["event"] == "epoch" and event["epoch"] == 1:
            raise KeyboardInterrupt

    state, lines = run(tmp_path / "whole", device, precision)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", device, precision, on_event=interrupt)
    for folder in ("again", "parts"):
        other_state, other_lines = run(tmp_path / folder, device, precision)
        assert other_lines == lines and len(lines) == 3
        assert all(torch.equal(other_state[name], tensor) for name, tensor in state.items())
    assert all(tensor.device.type == device.type for tensor in state.values())


@ONLY_ON_GPU
def test_a_run_that_is_killed_and_continued_has_the_bytes_of_one_that_was_not(tmp_path, device):
    def ends(folder, **options):
        process = processes.start(
            killed_runs.run, tmp_path / folder, "sgd", device=str(device), **options
        )
        return processes.end(process, seconds=120)

    assert ends("whole") == 0
    assert ends("killed", forward=12) == -signal.SIGKILL  # of 16
    assert ends("killed") == 0
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


@ON_EACH_DEVICE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_blocks_go_where_their_host_is_and_leave_its_output(device, dtype):
    model = ThinResNet(1, 5).to(device, dtype).eval()
    x = torch.randn(4, 3, 12, 20, device=device, dtype=dtype)
    before = model(x)
    assert insert_attention(model, "cpsam") and insert_attention(model, "non_local", at="layer1.0")
    floating = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert all(tensor.device.type == device.type and tensor.dtype == dtype for tensor in floating)
    assert torch.equal(model(x), before)


@pytest.fixture
def one_process(device):
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def gradients(run, model, x):
    model.zero_grad()
    run(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@ON_EACH_DEVICE
@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel(device):
    model, x = randomise(network()).to(device).eval(), torch.randn(4, 3, 12, 20, device=device)
    plain = gradients(model, model, x)
    wrapped = gradients(DistributedDataParallel(model), model, x)
    assert any(".attention." in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(
            wrapped[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item(), msg=name
        )


@ONLY_ON_GPU
def test_latency_is_of_the_work_and_not_of_its_launch(device):
    a = torch.randn(2048, 2048, device=device)

    def work():
        for _ in range(8):
            a @ a

    def work_and_wait():
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    found = measure_latency({"work": work, "work and wait": work_and_wait}, repeats=9)
    assert found["work"].median == pytest.approx(found["work and wait"].median, rel=0.5)


@ON_EACH_DEVICE
@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
def test_a_network_is_timed_where_it_lies(device, autocast):
    model, x = network().to(device), torch.randn(4, 3, 12, 20, device=device)
    steps = {
        str(last): forward_step(model, x, autocast=autocast, channels_last=last)
        for last in (False, True)
    }
    assert all(step().device.type == device.type for step in steps.values())
    assert all(
        0 < latency.q1 <= latency.median <= latency.q3 and latency.n == 5
        for latency in measure_latency(steps, repeats=5).values()
    )


@ON_EACH_DEVICE
def test_peak_memory_is_what_was_there_at_once(device):
    a = torch.zeros(1 << 20, device=device)  # 4 MiB

    def step():
        b = a + 1
        c = b + 1
        del b
        return (c + 1).sum()

    step()
    assert 8 << 20 <= peak_memory_bytes(step, device=device) < 9 << 20
