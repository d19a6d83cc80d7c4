"""A study says in each setting whether anything is remote at the places of the blocks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.quick_runs import QUIET, STUDY, Fake, carried_out
from torch import nn

from cpsam.config.study import Setting
from cpsam.config.task import Task
from cpsam.insert.receptive_field import receptive_field
from cpsam.models import cifar_resnet
from cpsam.report.results import read_results
from cpsam.run.build import Host
from cpsam.run.field import fields_of
from cpsam.study import fields as study_fields
from cpsam.study.fields import setting_fields
from cpsam.study.make_plan import make_plan

NEAR, FAR = Task(at=("layer1.0",)), Task(at=("before-last",))


def test_the_results_and_the_report_say_what_the_places_see(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake())
    results = read_results(tmp_path)
    fields = results.settings[0].receptive_fields
    alone = receptive_field(cifar_resnet("resnet20", 10), ["before-last"], image_size=16)
    assert fields is not None
    assert fields.sentences == alone.sentences
    assert "At layer3.1 the receptive field (65 px) covers the 16x16 image" in fields.sentences[-1]
    for name in ("report.html", "report.md"):
        report = (tmp_path / name).read_text().replace("\\", "")
        assert all(sentence in report for sentence in alone.sentences)


def test_settings_with_the_same_network_and_places_are_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(
        study_fields,
        "fields_of",
        lambda host, shape: measured.append(host.task.at) or fields_of(host, shape),
    )
    settings = (
        Setting("bare", NEAR, ("none",)),
        Setting("near", NEAR, ("none", "eca")),
        Setting("far", FAR, ("none", "eca")),
        Setting("again", FAR, ("none", "non_local")),
    )
    found = setting_fields(make_plan(replace(STUDY, settings=settings), QUIET))
    assert measured == [NEAR.at, FAR.at]
    assert found["bare"] is None and found["far"] is found["again"]
    assert found["near"] is not None
    assert [place.theoretical for place in found["near"].places] == [(7, 7)]


class SmallOnly(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] > 99:
            raise RuntimeError("images are too high\nby far")
        return images


def test_a_network_that_cannot_be_measured_gets_a_note() -> None:
    network = nn.Sequential(SmallOnly(), nn.Conv2d(3, 3, 3), nn.Flatten())
    found = fields_of(Host(Task(at=("1",)), 10, 3, lambda: network), (3, 16, 16))
    assert found.places == () and len(found.sentences) == 1
    assert found.sentences[0].startswith("The receptive field was not measured: ")
    assert found.sentences[0].endswith("images are too high.")
