"""Measures a finished run again, from its weights and its data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cpsam.checkpoint import load_weights
from cpsam.config.study import Task
from cpsam.config.transform import Transform
from cpsam.errors import DataError, UserError, unknown
from cpsam.evaluate import SPLITS, evaluate
from cpsam.identity import check_identity
from cpsam.insert import insert_from_config
from cpsam.run.arm import BARE
from cpsam.run.data import load_task
from cpsam.run.events import OnEvent, as_note
from cpsam.run.records import RunConfig
from cpsam.run.spec import COLUMNS
from cpsam.train.run_folder import CONFIG, SETTLED, WEIGHTS, read_json
from cpsam.typed import checked


def evaluate_run(
    folder: Path, data_root: Path | None, split: str, on_event: OnEvent
) -> dict[str, Any]:
    """Rebuilds the network of a run from its weights and measures it on the data of the run.

    Raises:
        UserError: If there is no run, or `split` is unknown.
        DataError: If the data is not that of the run, or a file of the run is damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    config, weights = read_json(folder / CONFIG), folder / WEIGHTS
    if config is None:
        raise UserError(f"{folder} holds no run: {CONFIG} is missing")
    if not weights.is_file():
        raise UserError(f"the run in {folder} is not finished: {WEIGHTS} is missing")
    checked(RunConfig, config, str(folder / CONFIG))
    data = config["data"]
    task = Task(
        data["name"],
        data_root,
        data["image_size"],
        data["validation"],
        config["model"],
        stream=data.get("stream"),
        transform=Transform(**data.get("transform", {})),
        **{name: data.get(name) for name in COLUMNS},
    )
    loaded = load_task(task, on_event, frozenset(data.get("skipped", ())))
    if loaded.dataset.fingerprint != data["fingerprint"]:
        raise DataError(
            f"the data in {data_root} is not what the run in {folder} was trained on: its"
            " fingerprint differs"
        )
    dataset = replace(loaded.dataset, mean=tuple(data["mean"]), std=tuple(data["std"]))
    tensors, meta = load_weights(weights, as_note(on_event))
    check_identity(meta, config, f"weights {weights}")
    model = loaded.build(BARE, seed=0)
    insert_from_config(model, meta["attention"])
    model.load_state_dict(tensors)
    compute = config[SETTLED]
    torch.set_num_threads(compute["threads"])
    result = evaluate(
        model,
        dataset,
        split,
        precision=compute["precision"],
        channels_last=compute["channels_last"],
    )
    return {"schema": 1, "run": str(folder), "split": split, **result}
