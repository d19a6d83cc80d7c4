"""timm's own tests of its models, run on every model that we register: ``make test-timm``.

They come with timm's source distribution, in the version that is installed and with the hash of the
lock. timm collects models when its test file is imported, so ours are registered before, by the
import of `MODELS`.
"""

import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm

from cpsam.models.timm_models import MODELS

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".timm"
# Forward, backward, configuration, features, TorchScript, three with fx; intermediate features,
# those as features, pruning.
TESTS_A_MODEL = 11


def fetch() -> Path:
    """The folder with timm's tests; pip downloads their archive once."""
    archive = CACHE / f"timm-{timm.__version__}.tar.gz"
    if not archive.is_file():
        pinned = re.search(
            rf"^timm=={re.escape(timm.__version__)} .*\n(?: .*\n)+",
            (ROOT / "requirements.lock").read_text(),
            re.M,
        )
        if pinned is None:
            sys.exit(
                f"timm {timm.__version__} is installed, which is not the one in requirements.lock"
            )
        CACHE.mkdir(exist_ok=True)
        (CACHE / "requirement.txt").write_text(pinned[0])
        # pip asks a source distribution for its metadata, and for that gets timm's build backend
        # into an environment of its own.
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-binary",
            "timm",
        ]
        subprocess.run(
            [*pip, "--require-hashes", "--dest", str(CACHE), "-r", str(CACHE / "requirement.txt")],
            check=True,
        )
    with tarfile.open(archive) as source:
        wanted = [
            member for member in source if re.search(r"/tests/|/pyproject\.toml$", member.name)
        ]
        source.extractall(CACHE, wanted, filter="data")
    return CACHE / f"timm-{timm.__version__}"


def list_models(filter: str | list[str] = "", module: str | list[str] = "", **rest) -> list[str]:
    """timm's function; where its tests name all modules with intermediate features, ours is one of
    them.
    """
    return timm.models.list_models(
        filter, [*module, "timm_models"] if isinstance(module, list) else module, **rest
    )


class OurModels:
    """Keeps the tests of our models, and fails a run in which one of them passed too few: a skipped
    test is none.
    """

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        self.passed: Counter[str] = Counter()

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        for item in items:
            if (
                name := getattr(item, "callspec", None) and item.callspec.params.get("model_name")
            ) in MODELS:
                self.models[item.nodeid] = name
        config.hook.pytest_deselected(
            items=[item for item in items if item.nodeid not in self.models]
        )
        items[:] = [item for item in items if item.nodeid in self.models]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed[self.models[report.nodeid]] += 1

    def too_few(self) -> list[str]:
        return [
            f"{name}: {self.passed[name]} of {TESTS_A_MODEL} tests passed"
            for name in MODELS
            if self.passed[name] < TESTS_A_MODEL
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.too_few() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.too_few() or [f"{len(MODELS)} models passed {TESTS_A_MODEL} tests each"]:
            terminalreporter.write_line(line)


def main(options: Sequence[str]) -> int:
    folder = fetch()
    timm.list_models = list_models
    where = [
        "-c",
        str(folder / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-q",
        "--disable-warnings",
    ]
    return pytest.main(
        [*where, *options, str(folder / "tests" / "test_models.py")], plugins=[OurModels()]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
