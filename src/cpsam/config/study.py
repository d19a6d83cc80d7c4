"""Says what a study compares, and the question it answers, as plain data."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cpsam.config.ranges import Seed, Threads
from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.typed import Choices, Distinct, check

MOST_RUNS = 100_000

Seeds = Annotated[tuple[Seed, ...], Distinct()]
Budget = Annotated[str, Choices("epochs", "time")]


@dataclass(frozen=True)
class NamedArm:
    """An arm under a name of its own, for what does not fit into ``cpsam:fusion=sum,reduction=8``.

    Attributes:
        name: What tables call it.
        attention: A name in ``ATTENTION``, or ``"none"``.
        arguments: Arguments of the block's constructor.
        recipe: Fields in which the recipe of this arm differs; the report warns of it.
        block: A callable from channels to a block, in place of a name; `attention` then says what
            identifies it.
    """

    name: str
    attention: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    block: Callable[[int], Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Setting:
    """Where arms are compared: one network on one data set, with blocks at the same places.

    Attributes:
        name: What tables call it.
        task: The data, the network and the places.
        arms: The arms in their order: words, as on the command line, or :class:`NamedArm`.
    """

    name: str
    task: Task
    arms: tuple[str | NamedArm, ...]

    def __post_init__(self) -> None:
        check(self)
        Distinct().check(self.task.at, "at")
        names = [arm if isinstance(arm, str) else arm.name for arm in self.arms]
        Distinct().check(names, "arms" if self.name else "attention")


@dataclass(frozen=True)
class Contrast:
    """A question: top-1 of `arm` minus that of `reference`, in the setting of this name."""

    arm: str
    reference: str
    setting: str

    def __post_init__(self) -> None:
        check(self)
        if self.arm == self.reference:
            raise UserError(f"a contrast needs two arms; got {self.arm} twice")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms x seeds x settings under one recipe, and the question, fixed before anything runs.

    Attributes:
        name: The name of its folder; "" for a comparison made on the command line, which has one
            setting without a name.
        settings: Where arms are compared.
        seeds: The same for every arm.
        recipe: How every arm is trained.
        threads: Threads of a run, part of its specification. 0: as many as torch takes.
        primary: The question that the study is for. None: CPSAM against Non-Local where the first
            setting has both, else the last of its arms against the first.
        contrasts: The secondary questions, whose p Holm adjusts together. Empty: the primary arm
            against every other, wherever it is.
        budget: "epochs": every arm trains for as many; "time": each arm trains for the number that
            comes nearest to the time of the bare network.
        control: Add the parameter-matched control to every setting that has both arms of the
            primary contrast and lacks it.
    """

    name: str
    settings: tuple[Setting, ...]
    seeds: Seeds
    recipe: Recipe = field(default_factory=Recipe)
    threads: Threads = 1
    primary: Contrast | None = None
    contrasts: tuple[Contrast, ...] = ()
    budget: Budget = "epochs"
    control: bool = True

    def __post_init__(self) -> None:
        check(self)
        Distinct().check([setting.name for setting in self.settings], "settings")
        runs = len(self.seeds) * sum(len(setting.arms) for setting in self.settings)
        if runs > MOST_RUNS:
            raise UserError(
                f"a study has at most {MOST_RUNS:,} runs; seeds x arms x settings are {runs:,}"
            )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms x seeds of one task under one recipe."""

    task: Task = field(default_factory=Task)
    attention: tuple[str, ...] = ("none", "conv_control", "non_local", "cpsam")
    """Arms: names of blocks (see: cpsam list), each with arguments of its own if wanted, as in
    cpsam:fusion=sum,reduction=8. The question is cpsam against non_local where both take part, else
    the last arm against the first.
    """
    seeds: Seeds = (0, 1, 2)
    """Seeds, the same for every arm: a list, not a number of seeds."""
    recipe: Recipe = field(default_factory=Recipe)
    out: Path = Path("runs")
    """Folder of results; finished runs in it are read, not repeated."""
    threads: Threads = 1
    """Threads of a run, part of its specification. 0: as many as torch takes."""
    budget: Budget = "epochs"
    """Every arm trains for as many epochs, or, with time, for the number that comes nearest to the
    time of the bare network.
    """
    control: bool = True
    """Add the parameter-matched control where CPSAM and Non-Local are compared without it."""

    def __post_init__(self) -> None:
        check(self)
        self.study()

    def study(self) -> Study:
        """Returns the same as a study of one setting."""
        return Study(
            name="",
            settings=(Setting("", self.task, self.attention),),
            seeds=self.seeds,
            recipe=self.recipe,
            threads=self.threads,
            budget=self.budget,
            control=self.control,
        )

    @property
    def folder(self) -> Path:
        """The folder of the runs of this task, and of the report on them."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.task.data}-{self.task.model}")
        return self.out / name.strip("-")
