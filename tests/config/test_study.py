"""What is asked for is checked before anything runs."""

from pathlib import Path

import pytest

from cpsam.config.study import Comparison
from cpsam.config.task import Task
from cpsam.errors import UserError


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Comparison(seeds=(3, 1, 3)), ["seeds must not repeat", "3"]),
        (lambda: Comparison(seeds=()), ["seeds is empty"]),
        (lambda: Comparison(seeds=(0, -2)), ["seeds must be a whole number from 0", "-2"]),
        (lambda: Comparison(attention=()), ["attention is empty"]),
        (
            lambda: Comparison(attention=("cpsam", "none", "cpsam")),
            ["attention must not repeat", "cpsam"],
        ),
        (lambda: Comparison(task=Task(at=())), ["at is empty"]),
        (lambda: Comparison(threads=-1), ["threads must be a whole number from 0 to 1,024", "-1"]),
        (lambda: Task(validation=1.0), ["validation must be a number from 0 to below 1", "1.0"]),
        (lambda: Task(image_size=4), ["image_size must be a whole number from 8 to 4,096", "4"]),
    ],
)
def test_refused_in_one_line_that_names_the_value(make, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert all(word in str(error.value) for word in words), error.value


def test_the_folder_stays_inside_the_one_asked_for() -> None:
    folder = Comparison(task=Task(data="../../etc", model="timm/resnet18"), out=Path("out")).folder
    assert folder.parent == Path("out")
    assert ".." not in folder.name
