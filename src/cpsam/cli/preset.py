"""Completes what a person typed with the values of a preset."""

from typing import Any

from cpsam.cli.flags import option
from cpsam.cli.verb import Verb
from cpsam.config.presets import find_preset, preset_for
from cpsam.errors import UserError


def complete(verb: Verb[Any], words: list[str]) -> dict[str, Any]:
    """Returns the values that the words give; a preset gives what they leave open.

    The preset is the one that is named, or else the one with the name of the data set.

    Raises:
        UserError: If a word does not fit, or the preset needs a flag that is missing.
    """
    given = verb.parse(words)
    if "preset" in given:
        preset = find_preset(given["preset"])
    else:
        data = given.get("data", verb.defaults.get("data", verb.flags["data"].default))
        preset = preset_for(data)
    for name in preset.needs:
        if name not in given:
            raise UserError(f"preset {given['preset']} needs {option(name)}")
    return {**verb.defaults, **preset.task, **vars(preset.recipe), **given}
