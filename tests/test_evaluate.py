"""Top-1, top-5 and loss are those of a definition that looks at one image at a time."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cpsam.data.batches import eval_batches
from cpsam.data.dataset import Dataset
from cpsam.data.split import Split
from cpsam.errors import UserError
from cpsam.evaluate import evaluate


def dataset(classes: int, train: int = 11, test: int = 23) -> Dataset:
    draw = np.random.default_rng(classes)

    def split(count: int) -> Split:
        images = draw.integers(0, 256, (count, 3, 4, 7), dtype=np.uint8)
        return Split(torch.from_numpy(images), torch.from_numpy(draw.integers(0, classes, count)))

    return Dataset(
        "made",
        split(train),
        split(test),
        tuple(map(str, range(classes))),
        (0.5, 0.4, 0.6),
        (0.3, 0.2, 0.1),
        1,
        True,
        "",
    )


def network(classes: int) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.Flatten(), nn.Linear(50, classes)
    )


def by_definition(model: nn.Module, data: Dataset, split: str) -> dict[str, float | int]:
    part = data.train if split == "train" else data.evaluation
    top1, top5, loss = 0, 0, 0.0
    for index in range(len(part)):
        x = [
            [[(value / 255 - data.mean[c]) / data.std[c] for value in row] for row in rows]
            for c, rows in enumerate(part.images[index].tolist())
        ]
        label = int(part.labels[index])
        logits = model.double().eval()(torch.tensor([x], dtype=torch.float64))[0].tolist()
        better = sum(value > logits[label] for value in logits)
        top1, top5 = top1 + (better < 1), top5 + (better < 5)
        loss -= logits[label] - math.log(sum(math.exp(value) for value in logits))
    return {
        "top1": top1 / len(part),
        "top5": top5 / len(part),
        "loss": loss / len(part),
        "n": len(part),
    }


@pytest.mark.parametrize("classes", [3, 5, 6, 17])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("batch_size", "channels_last"), [(1, True), (4, False), (23, True), (1000, False)]
)
def test_it_equals_the_definition(
    classes: int, split: str, batch_size: int, channels_last: bool
) -> None:
    data, model = dataset(classes), network(classes)
    got = evaluate(model, data, split, batch_size=batch_size, channels_last=channels_last)
    assert got == pytest.approx(by_definition(model, data, split), rel=1e-5)
    if classes <= 5:
        assert got["top5"] == 1.0


def test_sums_are_taken_in_float64() -> None:
    data, terms = dataset(6, test=4001), []

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = torch.zeros(len(x), 6)
            logits[:, 0] = x[:, 0, 0, 0] * 1000
            terms.append(logits)
            return logits

    loss = evaluate(Odd(), data, batch_size=3)["loss"]
    exact = nn.functional.cross_entropy(torch.cat(terms).double(), data.evaluation.labels).item()
    assert loss == pytest.approx(exact, rel=1e-13)


def test_every_module_is_left_in_its_mode_even_after_an_error() -> None:
    model = network(6).train()
    model[1].eval()  # a frozen norm
    modes = [module.training for module in model.modules()]
    seen: list[bool] = []
    model[2].register_forward_pre_hook(lambda module, inputs: seen.append(module.training))
    evaluate(model, dataset(6))
    assert seen == [False]
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ZeroDivisionError):
        evaluate(model, dataset(6), on_batch=lambda done, of: 1 // 0)
    assert [module.training for module in model.modules()] == modes


def test_nothing_of_the_model_changes() -> None:
    model = network(6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, dataset(6))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_memory_format_and_the_precision_are_those_asked_for() -> None:
    model, seen = network(6), []
    model[0].register_forward_hook(
        lambda module, inputs, output: seen.append(
            (inputs[0].is_contiguous(memory_format=torch.channels_last), output.dtype)
        )
    )
    exact = evaluate(model, dataset(6), channels_last=False)
    close = evaluate(model, dataset(6), precision="bfloat16")
    assert seen == [(False, torch.float32), (True, torch.bfloat16)]
    assert close["loss"] == pytest.approx(exact["loss"], rel=0.03)


def test_it_tells_where_it_is() -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        network(6), dataset(6), batch_size=10, on_batch=lambda done, of: seen.append((done, of))
    )
    assert seen == [(0, 23), (10, 23), (20, 23)]
    assert len(list(eval_batches(dataset(6).evaluation, dataset(6), batch_size=10))) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "tests"}, "unknown split 'tests': did you mean 'test'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate(network(6), dataset(6), **options)  # pyrefly: ignore


def test_a_model_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"the model answers \(23, 7\) for 23 images of 6 classes"):
        evaluate(network(7), dataset(6))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UserError, match="the test split of made has no images"):
        evaluate(network(6), dataset(6, test=0))
