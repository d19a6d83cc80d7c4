"""Prints the runs of a study, and how long they would take, without training."""

import json
from pathlib import Path

from cpsam import typed
from cpsam.config.study import Study
from cpsam.progress import ProgressBars
from cpsam.progress.sentences import plan_lines
from cpsam.report.facts import remote_notes
from cpsam.report.values import duration


def print_planned(study: Study, folder: Path, as_json: bool, runs_at_once: int) -> None:
    """Prints the runs of a study with their state, and an estimate of the time that is left."""
    from cpsam.study.conduct import opening
    from cpsam.study.estimate import estimate
    from cpsam.study.fields import setting_fields
    from cpsam.study.history import extended_history, known_epochs
    from cpsam.study.make_plan import make_plan
    from cpsam.study.run_reader import RunReader
    from cpsam.study.runs_at_once import choose_runs_at_once

    read = RunReader(folder)
    before = known_epochs(folder)
    known = dict(before)
    with ProgressBars() as progress:
        plan = make_plan(study, progress, known)
        # refuses another question than the one that the study was begun with
        extended_history(plan.describe(), read)
        at_once = choose_runs_at_once(runs_at_once, plan, read)
        time = estimate(
            plan,
            read,
            at_once,
            lambda done, total: progress(
                {"event": "data", "what": "timing arms", "done": done, "total": total}
            ),
        )
    fields = setting_fields(plan)
    if as_json:
        described = {**plan.describe(), "receptive_fields": typed.as_json(fields), "estimate": time}
        print(json.dumps(described, indent=1))
        return
    for line in plan_lines(opening(plan, read, at_once)):
        print(line)
    for spec in plan.runs:
        found = read(spec.folder_name).outcome
        print(f"{found.status if found else 'to do':9} {folder / spec.folder_name}")
    if known != before:
        print(
            "A budget of time is measured when the study begins. The epochs, and with them the"
            " names of these folders, may still change."
        )
    warnings = [f"warning: {warning}" for warning in plan.warnings]
    for line in (*remote_notes(fields), *plan.notes, *warnings):
        print(line)
    if time["runs"]:
        for name, arm in time["arms"].items():
            print(
                f"{name}: {arm['runs']} run{'s' * (arm['runs'] != 1)} of about"
                f" {duration(arm['run_seconds'])}"
            )
        how = f"{at_once} at once" if at_once > 1 else "one after the other"
        runs = f"{time['runs']} run{'s' * (time['runs'] != 1)}, {how}"
        how = (
            f"an estimate for this machine from {time['timed_steps']} timed steps per arm, without"
            " the time to load images"
        )
        print(f"about {duration(time['seconds'])} for {runs}: {how}")
    else:
        print("Every run has ended: there is nothing to do.")
