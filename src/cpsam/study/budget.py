"""Gives each arm the same time: an arm whose steps take longer gets fewer epochs.

One measurement before anything runs fixes the numbers of epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from cpsam.config.recipe import Recipe
from cpsam.errors import UserError
from cpsam.evaluate import autocast
from cpsam.files import hash_json
from cpsam.measure import measure_latency
from cpsam.run.arm import BARE, Arm
from cpsam.run.data import LoadedTask
from cpsam.torch_state import thread_count
from cpsam.train.compute import choose_compute, find_device


def epochs_in_time(
    recipes: Mapping[str, Recipe],
    arms: Mapping[str, Arm],
    loaded: LoadedTask,
    known: dict[str, int],
    threads: int,
) -> dict[str, Recipe]:
    """Returns the recipes with the numbers of epochs that take about as long as the bare network.

    Args:
        recipes: Arm -> how it is trained with a budget of epochs.
        arms: The arms by the same names.
        loaded: The network, the places, and the size of the images that steps are measured on.
        known: What was measured before; new numbers are added to it. A number is never measured
            twice, because it names runs.
        threads: Of a run; 0 takes as many as torch.
    """
    keys = {name: key_of(arms[name], loaded, recipe, threads) for name, recipe in recipes.items()}
    new = [name for name in recipes if keys[name] not in known]
    with thread_count(threads):
        for recipe in {recipe: None for name, recipe in recipes.items() if name in new}:
            same = [name for name in new if recipes[name] == recipe]
            steps = {f"arm {name}": training_step(loaded, arms[name], recipe) for name in same}
            steps["bare"] = training_step(loaded, BARE, recipe)
            times = {
                name: latency.median
                for name, latency in measure_latency(steps, repeats=10, warmup=2).items()
            }
            if 0 in times.values():
                raise UserError(
                    "the clock of this machine stands still, so a budget of time cannot be"
                    " measured; choose a budget of epochs"
                )
            for name in same:
                fraction = (
                    1.0 if arms[name].attention == "none" else times["bare"] / times[f"arm {name}"]
                )
                known[keys[name]] = max(1, round(recipe.epochs * fraction))
    return {name: shortened(recipe, known[keys[name]]) for name, recipe in recipes.items()}


def key_of(arm: Arm, loaded: LoadedTask, recipe: Recipe, threads: int) -> str:
    """Returns a name for what the time of a step depends on, except for the machine."""
    shape = [*loaded.input_shape, loaded.dataset.num_classes]
    content = [
        arm.attention,
        dict(arm.arguments),
        loaded.task.model,
        list(loaded.task.at),
        shape,
        recipe.to_dict(),
        threads,
    ]
    return f"{arm.slug}-{hash_json(content)[:10]}"


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """Returns the recipe with another number of epochs, and with its schedule stretched to it."""
    scale = epochs / recipe.epochs
    warmup = None if recipe.warmup_epochs is None else recipe.warmup_epochs * scale

    def stretched(milestone: float) -> float:
        if milestone < 1:
            return milestone
        # A number below 1 is read as a fraction of the run, so a milestone within the first epoch
        # is written as a fraction.
        return milestone * scale if milestone * scale >= 1 else milestone / recipe.epochs

    milestones = tuple(map(stretched, recipe.milestones))
    return replace(recipe, epochs=epochs, warmup_epochs=warmup, milestones=milestones)


def training_step(loaded: LoadedTask, arm: Arm, recipe: Recipe) -> Callable[[], object]:
    """Returns a function that runs forward and backward on one batch, as the recipe trains."""
    compute = choose_compute(recipe)
    device = find_device()
    model = loaded.build(arm, seed=0).to(device).to(memory_format=compute.memory_format).train()
    batch = torch.randn(recipe.batch_size, *loaded.input_shape, device=device)
    batch = batch.contiguous(memory_format=compute.memory_format)
    labels = torch.arange(recipe.batch_size, device=device) % loaded.dataset.num_classes

    def step() -> None:
        with autocast(compute.precision, device):
            loss = cross_entropy(model(batch), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    return step
