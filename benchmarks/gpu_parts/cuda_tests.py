"""The tests that only a GPU can pass: how many there are, how they end, how long they take."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_parts.part import NotHereError

ROOT = Path(__file__).parents[2]
ENDS = ("failure", "error", "skipped")


def measure(left: float, *, tests: str) -> dict[str, Any]:
    """Runs ``pytest -m cuda`` in a process of its own, and returns counts and what failed.

    Raises:
        NotHereError: If there are none.
        RuntimeError: If pytest ends without a report.
        subprocess.TimeoutExpired: If it takes more than the seconds that are left.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider"]
        ended = subprocess.run(
            [*command, f"--junit-xml={file}", tests],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=left,
            check=False,
        )
        if not file.exists():
            raise RuntimeError(f"pytest made no report: {(ended.stdout + ended.stderr)[-3000:]}")
        cases = list(ElementTree.parse(file).iter("testcase"))
    if not cases:
        raise NotHereError(f"no test in {tests} is marked cuda")
    ends = {end: [case for case in cases if case.find(end) is not None] for end in ENDS}
    bad = [*ends["failure"], *ends["error"]]
    passed = len(cases) - sum(map(len, ends.values()))
    return {
        "summary": f"{passed} of {len(cases)} tests passed, {len(bad)} failed",
        "tests": len(cases),
        "passed": passed,
        "failures": len(bad),
        "failed": sorted(f"{case.get('classname')}::{case.get('name')}" for case in bad),
        "exit_code": ended.returncode,
        "output": ended.stdout[-6000:] if bad else "",
    }
