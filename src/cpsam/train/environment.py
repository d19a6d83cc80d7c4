"""Where a run was made: versions, machine, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cpsam.train.compute import Compute, processor

PACKAGES = ("cpsam", "torch", "torchvision", "timm", "numpy")


def environment(compute: Compute, device: torch.device) -> dict[str, Any]:
    """Plain data for `environment.json`."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in PACKAGES},
        },
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": compute.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": compute.precision,
        "channels_last": compute.channels_last,
        "commit": commit(Path(__file__).parent),
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """Torch's name leaves out the model where the machine is a virtual one, so the family and model
    numbers go with it.
    """
    numbers = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            numbers.setdefault(name.strip(), value.strip())
    except OSError:
        return str(processor().get("cpu_name") or platform.processor() or platform.machine())
    name = numbers.get("model name", platform.machine())
    return (
        f"{name} (family {numbers['cpu family']}, model {numbers['model']})"
        if "cpu family" in numbers
        else name
    )


def commit(folder: Path) -> str | None:
    """The commit of the source that runs, with "+" if it was edited since; None for an installed
    copy or without git.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", folder, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()

    try:
        # a copy inside someone's repository is not of that repository
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--", str(folder.parent)) else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
