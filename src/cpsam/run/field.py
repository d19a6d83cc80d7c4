"""Measures whether anything is remote at the places of a task."""

from dataclasses import replace

from cpsam.insert.theoretical_field import fields_or_note
from cpsam.report.field import TheoreticalFields
from cpsam.run.arm import BARE
from cpsam.run.build import Host


def fields_of(host: Host, input_shape: tuple[int, int, int]) -> TheoreticalFields:
    """Returns the theoretical receptive fields at the places of a task, or a note.

    Args:
        host: The network and its places. Its pretrained weights are not loaded.
        input_shape: (C, H, W) of an image.
    """
    task = replace(host.task, weights=None, weights_key=None)
    bare = replace(host, task=task).build(BARE, seed=0)
    return fields_or_note(bare, task.at, input_shape[1:])
