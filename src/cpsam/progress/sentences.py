"""Says in sentences what a run or a study is about to do."""

from typing import Any

from cpsam.report.values import place_words

SEEDS_SHOWN = 20


def plan_lines(event: dict[str, Any]) -> list[str]:
    """Returns the images, the computation and the number of runs of a study, as lines."""
    lines = []
    for setting in event.get("settings", ()):
        data, name = setting["data"], f"{setting['name']}: " if setting["name"] else ""
        what = f"{setting['model']} at {', '.join(setting['at'])}"
        images = f"{data['name']}: {images_words(data)}, {data['classes']:,} classes"
        lines.append(f"{name}{what}; {images}")
        if data.get("note"):
            lines.append(data["note"])
        if setting["weights"]:
            lines.append(f"starts from {setting['weights']}; {'; '.join(setting['heads'])}")
    if (compute := event.get("computes")) is not None:
        lines.append(compute_words(compute))
    seeds = " ".join(map(str, event["seeds"][:SEEDS_SHOWN]))
    if len(event["seeds"]) > SEEDS_SHOWN:
        seeds += f" … ({len(event['seeds']):,})"
    at_once = event.get("at_once") or 1
    together = f", {at_once:,} at once" if at_once > 1 else ""
    runs = f"{count(event['runs'], 'run')}{together}, {event['ended']:,} already finished"
    return [*lines, f"{runs}; seeds {seeds}; {event['folder']}"]


def start_lines(event: dict[str, Any]) -> list[str]:
    """Returns the network, the images and the computation of a run, as lines."""
    blocks = "no attention"
    if event["places"]:
        blocks = f"{event['attention']} at {place_words(event['places'])}"
    start = "starts from random weights"
    if event["weights"]:
        head = "a new classifier" if event["new_head"] else "their classifier"
        start = f"starts from {event['weights']} with {head}"
    network = f"{event['model']} with {blocks}, {event['parameters']:,} parameters, {start}"
    processes = f", {event['processes']} processes" if event["processes"] > 1 else ""
    length = f"{count(event['steps'], 'step')} in {count(event['epochs'], 'epoch')}"
    return [
        f"{network}; {event['data']}: {images_words(event)}, {event['classes']:,} classes",
        f"{compute_words(event)}{processes}; {length}",
    ]


def images_words(data: dict[str, Any]) -> str:
    """Returns how many images a network is trained and measured on."""
    measured = f"{data['test_images']:,} of the {data['measured_on']} to measure on"
    return f"{data['train_images']:,} images to train on, {measured}"


def compute_words(compute: dict[str, Any]) -> str:
    """Returns the device, the precision, the memory format and the threads."""
    layout = "channels last" if compute["channels_last"] else "channels first"
    threads = count(compute["threads"], "thread")
    return f"on {compute['device']}, in {compute['precision']}, {layout}, {threads}"


def run_words(event: dict[str, Any]) -> str:
    """Returns which of several runs an event is about."""
    return f"run {event['index'] + 1}/{event['runs']}  {event['arm']}  seed {event['seed']}"


def count(number: int, noun: str) -> str:
    """Returns a number and its noun.

    Example:
        >>> count(1, "run"), count(1200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
