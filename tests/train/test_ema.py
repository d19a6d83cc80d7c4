"""The average of the weights, against its definition written out."""

import torch
from support.tiny import tiny_dataset, tiny_model

from cpsam.evaluate import evaluate
from cpsam.train.ema import Ema


def test_it_equals_the_definition_and_a_shared_weight_moves_once() -> None:
    model = tiny_model().double()
    ema = Ema(model, 0.6)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 12):
        with torch.no_grad():
            for index, tensor in enumerate(model.state_dict().values()):
                tensor += index + step
        ema.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            whole = not tensor.is_floating_point()
            expected[name] = (
                tensor.clone() if whole else decay * expected[name] + (1 - decay) * tensor
            )
    for name, tensor in ema.module.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    assert ema.module.tied.weight is ema.module.again.weight
    assert not torch.equal(ema.module.fc.weight, model.fc.weight)


def test_the_early_weights_are_soon_forgotten() -> None:
    ema = Ema(tiny_model(), 0.999)
    assert [round(ema.decay_at(step), 3) for step in (0, 1, 90, 10**6)] == [0.1, 0.182, 0.91, 0.999]


def test_it_is_no_part_of_what_is_trained() -> None:
    model = tiny_model()
    ema = Ema(model, 0.9)
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert not ema.module.training and model.training
    assert evaluate(ema.module, tiny_dataset()) == evaluate(model, tiny_dataset())
