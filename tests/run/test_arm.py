"""Arms: the words that name them, and what is refused."""

import pytest

from cpsam.attention import CPSAM, ConvControl
from cpsam.errors import UserError
from cpsam.run.arm import Arm, checked_arm, parse_arm


def test_a_bare_name_makes_the_block_with_its_defaults() -> None:
    make = parse_arm("cpsam").maker()
    assert make is not None
    block = make(24)
    assert isinstance(block, CPSAM)
    assert (block.in_channels, block.reduction) == (24, 16)


def test_the_case_of_a_name_does_not_matter() -> None:
    assert parse_arm("CPSAM:fusion=sum") == parse_arm("cpsam:fusion=sum")
    assert parse_arm("None") == parse_arm("none")


def test_none_makes_nothing() -> None:
    assert parse_arm("none").maker() is None


def test_arguments_reach_the_block_with_their_types() -> None:
    arm = parse_arm("non_local:reduction=4,scaled=true,mode=gaussian")
    assert arm.arguments == {"reduction": 4, "scaled": True, "mode": "gaussian"}
    make = arm.maker()
    assert make is not None
    block = make(40)
    assert (block.reduction, block.scaled, block.mode) == (4, True, "gaussian")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpsm", ["unknown attention 'cpsm'", "did you mean 'cpsam'"]),
        ("cpsam:fusio=sum", ["unknown argument of cpsam 'fusio'", "did you mean 'fusion'"]),
        ("cpsam:fusion", ["unknown argument of cpsam"]),
        ("cpsam:fusion=summ", ["fusion must be one of", "'summ'", "did you mean 'sum'"]),
        ("cpsam:reduction=0", ["reduction must be a whole number, at least 1", "got 0"]),
        ("cpsam:reduction=4,reduction=8", ["reduction is given twice"]),
        ("none:reduction=4", ["'none' has no block"]),
        ("cpsam:in_channels=4", ["unknown argument of cpsam 'in_channels'"]),
        ("cpsam:device=cuda", ["unknown argument of cpsam 'device'"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse_arm(text)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_a_table_gives_each_width_its_own_value() -> None:
    make = Arm("c", "conv_control", {"hidden_channels": {"24": 5, "40": 7}}).maker()
    assert make is not None
    blocks = [make(24), make(40)]
    assert all(isinstance(block, ConvControl) for block in blocks)
    assert [block.hidden_channels for block in blocks] == [5, 7]


def test_arguments_without_a_default_are_known() -> None:
    assert parse_arm("conv_control").missing == ["hidden_channels"]
    assert parse_arm("conv_control:hidden_channels=3").missing == []
    assert parse_arm("none").missing == []


def test_a_slug_is_safe_as_a_part_of_a_file_name() -> None:
    assert Arm("cpsam:fusion=sum,reduction=8", "cpsam").slug == "cpsam-fusion=sum-reduction=8"
    assert "/" not in Arm("../a/b", "cpsam").slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        (".writing-x", "writing-x"),
        ("..", "cpsam"),
        ("--help", "help"),
        ("\u6ce8\u610f", "cpsam"),
        ("\U0001f600", "cpsam"),
        ("CON", "CON"),
    ],
)
def test_the_folder_of_an_arm_is_neither_hidden_nor_an_option(name: str, slug: str) -> None:
    """Files whose name starts with a dot are ours, and those of writers that were killed are
    removed.
    """
    assert checked_arm(name, "cpsam", {}).slug == slug


@pytest.mark.parametrize("name", ["", " ", "\u3000", "cpsam ", "\nx", "x" * 1001])
def test_the_name_of_an_arm_can_be_read(name: str) -> None:
    with pytest.raises(
        UserError,
        match="the name of an arm must have 1 to 1,000 letters, and no space at its ends; got",
    ):
        checked_arm(name, "cpsam", {})
