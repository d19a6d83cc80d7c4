"""The results of a study, read once from `results.json` of any age.

What an older file lacks gets its default here and in :mod:`cpsam.report.records`, nowhere else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpsam.errors import DataError, UserError, unknown
from cpsam.files import read_json, write_atomically
from cpsam.report.records import (
    ArmResult,
    ArmTiming,
    ContrastResult,
    ControlResult,
    DatasetRecord,
    Environment,
    MadeBy,
    PlanEntry,
    SettingRecord,
    Timing,
)
from cpsam.statistics import PairedDifference
from cpsam.text import shorten
from cpsam.typed import STUDY_BYTES, as_json, checked

if TYPE_CHECKING:
    from cpsam.report.table import Table

SCHEMA = 1
RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """What a study found. It prints as the answer in a sentence and the table, also in a notebook.

    Example::

        results = cpsam.read_results("runs/blocks")
        print(results.answer)
        results.save("report.html")

    Attributes:
        command: The command line that made the results.
        schema: The version of the format.
        name: Of the study; "" for a comparison.
        data: The data of the primary contrast's setting, like `model` and `at`.
        settings: Where arms are compared, at least one.
        recipe: How each run is trained.
        budget: What is equal for all arms: "epochs" or "time"; "" in older results.
        seeds: One run per arm and seed.
        primary: The names of the arm and the reference of the primary contrast.
        control: The primary arm against the best control; None where no control took part.
        contrasts: The answers to the questions of the plan, the primary one first.
        arms: Each arm of each setting.
        made_by: Where the runs were made.
        unlike: Seed -> in what the environments of its runs differ.
        notes: What a reader may know.
        warnings: What a reader must know.
        environment: Where the results were written.
        timing: What was measured there.
        plan: A hash of the plan.
        plans: What the plan said each time that it changed.
        overtaken: Whether another process changed the plan meanwhile; then nothing was written.
    """

    command: str = ""
    schema: int = SCHEMA
    name: str = ""
    data: DatasetRecord
    model: str
    at: tuple[str, ...]
    settings: tuple[SettingRecord, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    budget: str = ""
    seeds: tuple[int, ...]
    primary: tuple[str, str]
    control: ControlResult | None = None
    contrasts: tuple[ContrastResult, ...] = ()
    arms: tuple[ArmResult, ...]
    made_by: tuple[MadeBy, ...] = ()
    unlike: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    environment: Environment = field(default_factory=Environment)
    timing: Timing = field(default_factory=Timing)
    plan: str | None = None
    plans: tuple[PlanEntry, ...] = ()
    overtaken: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str = RESULTS) -> "Results":
        """Returns the results that the content of a `results.json` describes.

        Args:
            content: What JSON gave.
            where: Names the content in an error.

        Raises:
            DataError: If the schema is another, or a field is missing or of another type.
        """
        if content.get("schema") != SCHEMA:
            raise DataError(
                f"{where}: schema must be {SCHEMA}; got {shorten(content.get('schema'))}"
            )
        return completed(checked(cls, content, where))

    def to_json(self) -> dict[str, Any]:
        """Returns the content of a `results.json` that describes these results."""
        return as_json(self)

    @property
    def answer(self) -> str:
        """The primary contrast in one sentence."""
        from cpsam.report.answer import answer

        return answer(self)

    def table(self, setting: str | None = None) -> "Table":
        """Returns the comparison as text, one row per arm; for numbers, see :meth:`to_dataframe`.

        Args:
            setting: Only the arms of this one; None: all.

        Raises:
            UserError: If there is no such setting.
        """
        from cpsam.report.table import arms_table

        names = [each.name for each in self.settings]
        if setting is not None and setting not in names:
            raise unknown("setting", setting, names)
        return arms_table(self, setting)

    def to_dataframe(self, rows: str = "runs") -> Any:
        """Returns the numbers as a `pandas.DataFrame`.

        Args:
            rows: What a row is about: "runs", "arms" or "contrasts".

        Raises:
            UserError: If pandas is not installed, or the kind of rows is unknown.
        """
        from cpsam.report.formats import records_of

        header, records = records_of(self, rows)
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise UserError("to_dataframe needs pandas: pip install pandas") from None
        return pandas.DataFrame(records, columns=list(header))

    def save(self, path: str | Path, rows: str = "runs") -> None:
        """Writes a report.

        Args:
            path: The file; its suffix says the form: ".html", ".md", ".csv" or ".json". Its folder
                is made if it is missing. After a crash it has either its old content or the new.
            rows: What a line of CSV is about: "runs", "arms" or "contrasts".

        Raises:
            UserError: If the suffix or the kind of rows is unknown, or the folder is a file.
            OSError: If the file cannot be written.
        """
        from cpsam.report.formats import rendered

        file = Path(path)
        text = rendered(self, file.suffix, rows)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"path: {file.parent} is not a folder") from None
        write_atomically(file, text.encode())

    def __repr__(self) -> str:
        from cpsam.report.show import results_text

        return results_text(self)

    def _repr_html_(self) -> str:
        from cpsam.report.show import results_html

        return results_html(self)

    @property
    def primary_contrast(self) -> ContrastResult:
        return self.contrasts[0]

    @property
    def has_settings(self) -> bool:
        """Whether arms are compared in more than one setting."""
        return len(self.settings) > 1

    @property
    def datasets(self) -> list[DatasetRecord]:
        """The data of each setting, without repetition."""
        found: list[DatasetRecord] = []
        for setting in self.settings:
            found += [setting.data] if setting.data not in found else []
        return found

    @cached_property
    def by_name(self) -> dict[str, ArmResult]:
        """The arms by their names in the study."""
        return {arm.name: arm for arm in self.arms}

    def short_name(self, name: str) -> str:
        """Returns the name of an arm without its setting; an absent arm keeps its name."""
        return self.by_name[name].arm if name in self.by_name else name

    def arms_in(self, setting: str | None) -> list[ArmResult]:
        """Returns the arms of a setting; for None, all."""
        return [arm for arm in self.arms if setting in (None, arm.setting)]

    def timing_of(self, arm: ArmResult) -> ArmTiming:
        """Returns the times of an arm; they are None where none were measured."""
        return self.timing.arms.get(arm.name, ArmTiming())

    def differences_of(self, arm: ArmResult) -> dict[str, PairedDifference | None]:
        """Returns name of a reference within the setting -> the difference of an arm to it.

        References that did not take part are left out.
        """
        return {
            self.by_name[name].arm: difference
            for name, difference in arm.difference.items()
            if name in self.by_name
        }

    def references_in(self, setting: str | None) -> list[str]:
        """Returns the names, within a setting, of the arms that others are compared with.

        The reference of the primary contrast comes first.
        """
        names = {name for arm in self.arms_in(setting) for name in self.differences_of(arm)}
        first = self.short_name(self.primary[1])
        return sorted(names, key=lambda name: (name != first, name))


def completed(results: Results) -> Results:
    """Returns the results with what older files leave out.

    These are settings, names of arms within their setting, and contrasts.
    """
    arms = tuple(replace(arm, arm=arm.arm or arm.name) for arm in results.arms)
    only = SettingRecord(name="", data=results.data, model=results.model, at=results.at)
    primary = only_contrast(results.primary, arms)
    return replace(
        results,
        arms=arms,
        settings=results.settings or (only,),
        contrasts=results.contrasts or (primary,),
    )


def only_contrast(primary: tuple[str, str], arms: Iterable[ArmResult]) -> ContrastResult:
    """Returns the primary contrast of results that have only the differences of their arms."""
    name, reference = primary
    found = next((arm.difference.get(reference) for arm in arms if arm.name == name), None)
    numbers: dict[str, Any] = asdict(found) if found else {"n": 0}
    return ContrastResult(arm=name, reference=reference, primary=True, **numbers)


def read_results(path: str | Path) -> Results:
    """Reads the results of a study.

    Args:
        path: The folder of the study, or its `results.json`.

    Raises:
        DataError: If there are none, or the file is damaged; names the file and the field.
    """
    file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
    content = read_json(file, STUDY_BYTES)
    if content is None:
        raise DataError(f"{file}: there are no results; a study writes them when it ends")
    return Results.from_json(content, str(file))
