"""Facts about a study: its networks, data, protocol, blocks and runs."""

from collections import Counter
from collections.abc import Mapping

from cpsam.report.field import TheoreticalFields
from cpsam.report.records import MadeBy
from cpsam.report.results import Results
from cpsam.report.values import numbered, place_words, words

STATUSES = ("done", "diverged", "failed", "missing")


def facts_words(results: Results) -> str:
    """Returns networks, data, seeds and runs in one sentence."""
    settings = results.settings
    places = words(
        [setting.name for setting in settings] if results.has_settings else settings[0].at
    )
    networks = words(list(dict.fromkeys(setting.model for setting in settings)))
    has_blocks = any(arm.places for arm in results.arms)
    facts = [f"{networks} {f'with a block at {places}' if has_blocks else 'without a block'}"]
    for data in results.datasets:
        measured = f"{data.test_images:,} of the {data.measured_on} to measure on"
        images = f"{data.train_images:,} images to train on, {measured}"
        facts.append(f"{data.name}: {images}, {data.classes} classes")
    facts.append(f"{numbered(len(results.seeds), 'seed')} ({words(results.seeds)})")
    return "; ".join([*facts, count_words(results)]) + "."


def count_words(results: Results) -> str:
    """Returns how many runs there were and how they ended: ``24 runs: 22 done, 2 diverged``.

    A run that two settings have in common counts once.
    """
    ends = Counter({run.folder: run.status for arm in results.arms for run in arm.runs}.values())
    parts = [f"{ends[status]} {status}" for status in STATUSES if ends[status]]
    return f"{numbered(ends.total(), 'run')}: {', '.join(parts)}"


def data_notes(results: Results) -> list[str]:
    """Returns the note of each data set, once."""
    return list(dict.fromkeys(data.note for data in results.datasets if data.note))


def notes(results: Results) -> list[str]:
    """Returns what a reader may know: where something is remote, and the notes of the plan."""
    fields = {setting.name: setting.receptive_fields for setting in results.settings}
    return [*remote_notes(fields), *results.notes]


def remote_notes(fields: Mapping[str, TheoreticalFields | None]) -> list[str]:
    """Returns where something is remote, one sentence per line.

    Settings with the same sentence share a line.
    """
    settings: dict[str, list[str]] = {}
    for name, each in fields.items():
        if each is not None:
            for sentence in each.sentences:
                settings.setdefault(sentence, []).append(name)
    several = len(fields) > 1
    return [f"{words(names)}: {said}" if several else said for said, names in settings.items()]


def protocol(results: Results) -> dict[str, object]:
    """Returns when and on what is measured, what is equal for all arms, and the seeds."""
    measured = f"after the last epoch, on the {results.data.measured_on}"
    budget = {"budget": f"equal {results.budget}"} if results.budget else {}
    return {"measured": measured, **budget, "seeds": results.seeds}


def blocks(results: Results) -> dict[str, str]:
    """Returns arm -> its block, its arguments and its places. The bare network has none."""
    said = {}
    for arm in results.arms:
        if arm.places:
            parts = [arm.attention] if arm.attention != arm.arm else []
            parts += [words(arm.arguments) or "defaults", f"at {place_words(arm.places)}"]
            parts += [f"recipe of its own: {words(arm.recipe)}"] if arm.recipe else []
            said[arm.name] = ", ".join(parts)
    return said


def made_by(results: Results) -> list[str]:
    """Returns where the runs were made, one line per environment."""
    return [made_by_words(made) for made in results.made_by]


def made_by_words(made: MadeBy) -> str:
    resumed = f" ({made.resumed} of them resumed elsewhere)" if made.resumed else ""
    machine = [each for each in (made.processor, made.device, made.precision) if each]
    threads = f"{made.threads} thread{'s' * (made.threads != 1)}"
    versions = f"torch {made.versions.get('torch')}, commit {str(made.commit)[:10]}"
    return f"{numbered(made.runs, 'run')}{resumed}: {', '.join([*machine, threads, versions])}"
