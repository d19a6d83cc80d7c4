"""Training, distribution and measuring on a GPU."""

import json

import pytest
import torch
from support.gpu import DEVICE, ON_GPU
from torch.nn.parallel import DistributedDataParallel

from cpsam.data.dataset import Dataset
from cpsam.data.split import Split
from cpsam.errors import StoppedError
from cpsam.insert import insert_attention
from cpsam.measure import forward_step, measure_latency, peak_memory_bytes
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise
from cpsam.train import Recipe
from cpsam.train.train import train

pytestmark = ON_GPU


def network():
    torch.manual_seed(0)
    model = ThinResNet(1, 5)
    insert_attention(model, "cpsam", at=("layer2.0", "layer3.0"))
    insert_attention(model, "non_local", at="layer3.0")
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


def run(folder, precision, **options):
    model = network()
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05, precision=precision)
    train(
        model,
        DATA,
        recipe,
        seed=5,
        folder=folder,
        config={"what": "noise"},
        device=DEVICE,
        **options,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return model.state_dict(), [
        {name: value for name, value in line.items() if name != "timing"} for line in lines
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_was_stopped_and_continued_has_the_bits_of_one_that_was_not(tmp_path, precision):
    def interrupt(event):
        if event["event"] == "epoch" and event["epoch"] == 1:
            raise KeyboardInterrupt

    state, lines = run(tmp_path / "whole", precision)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", precision, on_event=interrupt)
    again, other = run(tmp_path / "parts", precision)
    assert other == lines and len(lines) == 3
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert all(tensor.device.type == DEVICE.type for tensor in state.values())


@pytest.fixture
def one_process():
    backend = "nccl" if DEVICE.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def gradients(run, model, x):
    model.zero_grad()
    run(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_distributed_data_parallel(one_process):
    model, x = randomise(network()).to(DEVICE).eval(), torch.randn(4, 3, 12, 20, device=DEVICE)
    plain = gradients(model, model, x)
    wrapped = gradients(DistributedDataParallel(model), model, x)
    assert any(".attention." in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(
            wrapped[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item(), msg=name
        )


def test_latency_is_of_the_work_and_not_of_its_launch():
    a = torch.randn(2048, 2048, device=DEVICE)

    def work():
        for _ in range(8):
            a @ a

    def work_and_wait():
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    found = measure_latency({"work": work, "work and wait": work_and_wait}, repeats=9)
    assert found["work"].median == pytest.approx(found["work and wait"].median, rel=0.5)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_network_is_timed_where_it_lies(autocast):
    model, x = network().to(DEVICE), torch.randn(4, 3, 12, 20, device=DEVICE)
    steps = {
        str(last): forward_step(model, x, autocast=autocast, channels_last=last)
        for last in (False, True)
    }
    assert all(step().device.type == DEVICE.type for step in steps.values())
    assert all(
        0 < latency.q1 <= latency.median <= latency.q3 and latency.n == 5
        for latency in measure_latency(steps, repeats=5).values()
    )


def test_peak_memory_is_what_was_there_at_once():
    a = torch.zeros(1 << 20, device=DEVICE)  # 4 MiB

    def step():
        b = a + 1
        c = b + 1
        del b
        return (c + 1).sum()

    step()
    assert 8 << 20 <= peak_memory_bytes(step, device=DEVICE) < 9 << 20
