"""The names that are known before torch is imported are those of the library."""

import subprocess
import sys

import pytest

from cpsam.cli.names import OWN_TIMM_MODELS, REGISTRIES, is_misspelt, library_models, registry
from cpsam.cli.source import Source

HEAVY = {"torch", "timm", "torchvision"}
QUICK = [
    "list",
    "list models --json",
    "list placements data",
    "help",
    "help train",
    "version",
    "train --help-all",
    "completion bash",
    "tran",
    "train --epoch 3",
    "train --epochs few --out x",
    "train --data digts --out x",
    "train --attention cpasm --out x",
    "compare --model resnt20",
    "compare --model timm/resnt18",
    "compare --model torchvision/resnt18",
    "compare --attention none,cpasm",
    "compare --at before-lst",
    "cost --attention non_locl",
    "study nowhere.toml",
    "list atention",
]


def test_names_and_typos_are_answered_without_torch() -> None:
    program = f"""if True:
        import sys
        from cpsam.cli import main
        for line in {QUICK}:
            try:
                main(line.split())
            except SystemExit:
                pass
            assert not {HEAVY} & set(sys.modules), line
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_source_says_what_the_registry_says(kind: str) -> None:
    module, name = REGISTRIES[kind]
    __import__(module)
    assert Source.of(module).entries(name) == registry(kind) != {}


def test_the_models_of_the_libraries_are_read_from_their_source() -> None:
    import timm
    import torchvision

    from cpsam.models.timm_models import MODELS

    assert library_models("timm") == set(timm.list_models()) - set(MODELS)
    listed = torchvision.models.list_models(module=torchvision.models)
    assert library_models("torchvision") == set(listed)
    assert all(name.startswith(OWN_TIMM_MODELS) for name in MODELS)


@pytest.mark.parametrize(
    ("place", "misspelt"),
    [
        ("before-lst", True),
        ("erly", True),
        ("Before-Last", False),
        ("layer3.*", False),
        ("layer3", False),
        ("features", False),
        ("fc", False),
    ],
)
def test_a_path_of_modules_is_no_misspelt_placement(place: str, misspelt: bool) -> None:
    assert is_misspelt(place, registry("placements")) == misspelt
