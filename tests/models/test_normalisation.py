import json
from pathlib import Path

import pytest
import timm
from torch import nn
from torchvision.models import get_model_weights

from cpsam.models import normalisation
from cpsam.models.normalisation import expected_scaling

HALF = (0.5,) * 3
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_each_file_of_torchvision_says_its_own() -> None:
    weights = get_model_weights("efficientnet_v2_l").IMAGENET1K_V1.transforms()
    assert (
        normalisation("torchvision/efficientnet_v2_l")
        == (tuple(weights.mean), tuple(weights.std))
        == (HALF, HALF)
    )
    assert normalisation("torchvision/resnet18") == IMAGENET


def test_the_file_is_known_by_its_hash_and_others_are_named() -> None:
    scaling, why = expected_scaling("torchvision/vgg16", None, sha256="88682ab5" + 56 * "0")
    assert (
        scaling is not None
        and scaling[1][0] == pytest.approx(1 / 255)
        and "IMAGENET1K_FEATURES of torchvision/vgg16 says" in why
    )
    scaling, why = expected_scaling("torchvision/vgg16", None, sha256=64 * "0")
    assert scaling == IMAGENET and why.endswith("IMAGENET1K_FEATURES of this network want another")


def test_a_tag_of_timm_says_its_own() -> None:
    assert normalisation("timm/inception_v3.tf_in1k") == (HALF, HALF)
    assert normalisation("timm/inception_v3") == normalisation(
        f"timm/inception_v3.{timm.get_pretrained_cfg('inception_v3').tag}"
    )
    assert (
        "of this network want another" in expected_scaling("timm/inception_v3", None, sha256="")[1]
    )


def test_what_lies_beside_the_file_is_believed_first(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "pretrained_cfg": {"mean": HALF, "std": HALF}})
    )
    assert normalisation("timm/resnet18", tmp_path) == (HALF, HALF)
    for broken in (
        '{"pretrained_cfg": {"mean": [0.5], "std": [0]}}',
        "{",
        '{"pretrained_cfg": 3, "data": []}',
    ):
        (tmp_path / "config.json").write_text(broken)
        assert normalisation("timm/resnet18", tmp_path) == IMAGENET


def test_a_network_without_a_convention_keeps_the_scaling_of_the_data() -> None:
    @timm.models.register_model
    def a_network_without_configuration(pretrained: bool = False, **kwargs: object) -> nn.Module:
        return nn.Flatten()

    assert normalisation("timm/a_network_without_configuration") is None
    assert normalisation("resnet20") is None
