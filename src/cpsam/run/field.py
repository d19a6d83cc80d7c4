"""Measures whether anything is remote at the places of a task."""

from dataclasses import replace

from cpsam.insert.theoretical_field import theoretical_fields
from cpsam.report.field import TheoreticalFields
from cpsam.run.arm import BARE
from cpsam.run.build import Host


def fields_of(host: Host, input_shape: tuple[int, int, int]) -> TheoreticalFields:
    """Returns the theoretical receptive fields at the places of a task.

    A network that cannot be measured gets a note instead, because no run depends on its fields.

    Args:
        host: The network and its places. Its pretrained weights are not loaded.
        input_shape: (C, H, W) of an image.
    """
    size = input_shape[1:]
    try:
        task = replace(host.task, weights=None, weights_key=None)
        bare = replace(host, task=task).build(BARE, seed=0)
        return theoretical_fields(bare, task.at, size)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        note = f"The receptive field was not measured: {reason.rstrip('.')}."
        return TheoreticalFields(image_size=size, note=note)
