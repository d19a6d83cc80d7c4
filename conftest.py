"""What tests and docstring examples share: torch by name, and the same seed in front of each."""

import signal

import pytest
import torch

# else --doctest-modules imports each as a module of one and the same name
collect_ignore_glob = ["*conftest.py"]

# A shell starts what it puts in the background with Ctrl-C ignored, which every process of a test
# would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def reproducible(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch
    torch.manual_seed(0)
