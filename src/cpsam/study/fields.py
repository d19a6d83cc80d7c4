"""Measures, in each setting of a study, whether anything is remote at the places."""

from cpsam.report.field import TheoreticalFields
from cpsam.run.field import fields_of
from cpsam.study.plan import Plan


def setting_fields(plan: Plan) -> dict[str, TheoreticalFields | None]:
    """Returns what the bare network sees, by setting; None where no arm has a block.

    Settings with the same network, places and image size are measured once.
    """
    known: dict[object, TheoreticalFields] = {}
    found: dict[str, TheoreticalFields | None] = {}
    for name, loaded in plan.loaded.items():
        found[name] = None
        if any(arm.cost.places for arm in plan.arms if arm.setting == name):
            network = id(loaded.network) if loaded.network else loaded.task.model
            key = (network, loaded.task.at, loaded.input_shape)
            if key not in known:
                known[key] = fields_of(loaded.host, loaded.input_shape)
            found[name] = known[key]
    return found
