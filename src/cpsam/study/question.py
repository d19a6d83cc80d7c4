"""Finds the question of a study, and checks that its arms take part."""

from collections.abc import Mapping

from cpsam.config.study import Contrast, Study
from cpsam.errors import unknown
from cpsam.run.arm import Arm

# The primary contrast by block, where none is named and both take part. The first arm of each block
# stands for it.
PRIMARY = ("cpsam", "non_local")
ALONE = "(no other arm)"  # the reference of an arm that has none to be compared with


def default_primary(asked: Mapping[str, list[Arm]]) -> Contrast:
    """Returns CPSAM against Non-Local where the first setting has both, else its last arm against
    its first.

    An arm that is alone is against the bare network, which takes no part.
    """
    setting, arms = next(iter(asked.items()))
    blocks = [next((arm.name for arm in arms if arm.attention == block), None) for block in PRIMARY]
    if blocks[0] and blocks[1]:
        return Contrast(blocks[0], blocks[1], setting)
    first, last = arms[0].name, arms[-1].name
    return Contrast(last, first if len(arms) > 1 else ALONE, setting)


def check_contrasts(study: Study, primary: Contrast, asked: Mapping[str, list[Arm]]) -> None:
    """Refuses a question of a plan about an arm that takes no part.

    A comparison asks no question by itself. Without one of the two arms, its table has no answer.

    Raises:
        UserError: If an arm of a question takes no part.
    """
    for contrast in (*([primary] if study.primary else []), *study.contrasts):
        names = [arm.name for arm in asked[contrast.setting]]
        for name in (contrast.arm, contrast.reference):
            if name not in names:
                where = f" in {contrast.setting}" if contrast.setting else ""
                raise unknown(f"arm of a contrast{where}", name, names)
