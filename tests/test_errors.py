import subprocess
import sys

import pytest

from cpsam.errors import CpsamError, DataError, DivergedError, StoppedError, UserError, unknown


def test_exit_codes_tell_mistakes_apart():
    assert [error.exit_code for error in (UserError, DataError, DivergedError, StoppedError)] == [
        2,
        3,
        4,
        75,
    ]


def test_the_kinds_are_siblings_and_only_the_mistake_in_a_value_is_a_value_error():
    for error in (UserError, DataError, DivergedError, StoppedError):
        assert error.__bases__[0] is CpsamError
        assert issubclass(error, ValueError) == (error is UserError)


@pytest.mark.parametrize(
    "given, hint",
    [
        ("resnet21", "did you mean 'resnet20'? "),
        ("resnet-20", "did you mean 'resnet20'? "),
        ("transformer", ""),
        ("", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_unknown_names_what_was_given_the_nearest_and_all_choices(given, hint):
    error = unknown("model", given, ["vgg", "resnet20"])
    assert type(error) is UserError
    assert str(error) == f"unknown model {given!r}: {hint}Choices: resnet20, vgg"


def test_unknown_takes_any_iterable_and_no_choice_at_all():
    assert "Choices: a, b" in str(unknown("block", "c", (name for name in "ba")))
    assert str(unknown("block", "c", {})).startswith("unknown block 'c'")


def test_errors_cost_no_torch():
    code = (
        "import sys, cpsam, cpsam.errors; assert not {'torch', 'timm', 'matplotlib', 'onnx'} &"
        " set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
