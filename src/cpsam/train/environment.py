"""Records where a run is made: versions, machine and commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cpsam.train.compute import Compute, processor_features

PACKAGES = ("cpsam", "torch", "torchvision", "timm", "numpy")


def environment(compute: Compute, device: torch.device) -> dict[str, Any]:
    """Returns plain data for `environment.json`."""
    versions = {name: installed_version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": compute.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": compute.precision,
        "channels_last": compute.channels_last,
        "commit": commit(Path(__file__).parent),
    }


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """Returns the name of the processor with its family and model numbers.

    A virtual machine may leave the model out of the name.
    """
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        reported = processor_features().get("cpu_name")
        return str(reported or platform.processor() or platform.machine())
    name = facts.get("model name", platform.machine())
    if "cpu family" not in facts:
        return name
    return f"{name} (family {facts['cpu family']}, model {facts['model']})"


def commit(folder: Path) -> str | None:
    """Returns the commit of the source in a folder, with "+" if the source was edited since.

    It is None for an installed copy, and without git.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        # A copy inside somebody's repository is not part of that repository.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        edited = git("status", "--porcelain", "--", str(folder.parent))
        return git("rev-parse", "HEAD") + ("+" if edited else "")
    except (OSError, subprocess.SubprocessError):
        return None
