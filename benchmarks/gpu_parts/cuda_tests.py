"""The tests that only a GPU can pass: how many there are, how they end, how long they take."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_parts.part import NotHereError

ROOT = Path(__file__).parents[2]
LONGEST = 220  # seconds
STOPPED = 124  # exit code of `timeout`
ENDS = ("failure", "error", "skipped")


def measure(left: float, *, tests: str) -> dict[str, Any]:
    """Runs ``pytest -m cuda`` in a process of its own, and returns counts and what failed.

    Raises:
        NotHereError: If there are none.
        RuntimeError: If pytest ends without a report.
    """
    # A test file that cannot be imported counts as an error, and stops no other one.
    flags = ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", *flags]
    # Ctrl-C makes pytest report the tests that it has run.
    limit = ["timeout", "--foreground", "--signal=INT", "--kill-after=20", str(min(left, LONGEST))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.xml")
        ended = subprocess.run(
            [*limit, *command, f"--junit-xml={file}", tests],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if not file.exists():
            raise RuntimeError(f"pytest made no report: {(ended.stdout + ended.stderr)[-3000:]}")
        cases = list(ElementTree.parse(file).iter("testcase"))
    if not cases:
        raise NotHereError(f"no test in {tests} is marked cuda")
    ends = {end: [case for case in cases if case.find(end) is not None] for end in ENDS}
    bad = [*ends["failure"], *ends["error"]]
    stopped = ended.returncode == STOPPED  # The report has the interrupted test as one that passed.
    passed = len(cases) - sum(map(len, ends.values())) - stopped
    note = ", then they were stopped" if stopped else ""
    return {
        "summary": f"{passed} of {len(cases)} tests passed, {len(bad)} failed{note}",
        "tests": len(cases),
        "passed": passed,
        "failures": len(bad) + stopped,
        "failed": sorted(f"{case.get('classname')}::{case.get('name')}" for case in bad),
        "exit_code": ended.returncode,
        "output": ended.stdout[-6000:] if bad else "",
    }
