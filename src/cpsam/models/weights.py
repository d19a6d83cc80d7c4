"""Load pretrained weights into a network: only what was inserted may be missing from them."""

from pathlib import Path

from torch import Tensor, nn

from cpsam.errors import UserError
from cpsam.insert.hook import places
from cpsam.models.state_file import read_state

LISTED = 40
"""Keys that an error lists; more than that is another model."""


def classifier_keys(model: nn.Module, num_classes: int) -> set[str]:
    """The parameters of the last layer that has as many outputs as there are classes."""
    found: set[str] = set()
    for path, module in model.named_modules():
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels if isinstance(module, nn.Conv2d) else None
        if outputs == num_classes:
            found = {f"{path}.weight", f"{path}.bias"}
    return found


def with_new_blocks(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`state`, and the blocks inserted in `model` as they are, if it has none of them: weights of the bare host then fit strictly."""
    blocks = tuple(f"{path}.attention." for path, _ in places(model))
    if any(key.startswith(blocks) for key in state):
        return state
    return state | {key: tensor for key, tensor in model.state_dict().items() if key.startswith(blocks)}


def load_pretrained(model: nn.Module, path: Path | str, num_classes: int) -> list[str]:
    """Load a file of weights into `model`, in place.

    Args:
        model: A network, bare, or with blocks that start as they are if the file has none of them.
        path: The file: ``.safetensors``, or another's ``.pth``, which is read with ``weights_only=True``.
        num_classes: Width of the model's classifier. One for another number of classes in the file is left out.

    Returns:
        The keys that were left out, at most the classifier's.

    Raises:
        DataError: If the file is missing or damaged.
        UserError: If it is of another kind or asks for code, or a key or a shape does not fit.
    """
    path = Path(path)
    state = with_new_blocks(read_state(path), model)
    own = model.state_dict()
    # Older files lack the step counters of the norms, which nothing reads when the momentum is fixed.
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    misfits = {key for key in state if key in own and state[key].shape != own[key].shape}
    left_out = misfits & classifier_keys(model, num_classes)
    if left_out:
        left_out |= {key for key in classifier_keys(model, num_classes) if key in state}
    for reason, keys in (
        ("lacks", own.keys() - state.keys() - counters),
        ("has, and the model has not,", state.keys() - own.keys()),
        ("has in another shape", misfits - left_out),
    ):
        if keys:
            listed = ", ".join(sorted(keys)[:LISTED]) + (f" and {len(keys) - LISTED} more" if len(keys) > LISTED else "")
            raise UserError(f"weights do not fit the model: {path.name} {reason} {len(keys)} keys: {listed}")
    model.load_state_dict({key: tensor for key, tensor in state.items() if key not in left_out}, strict=False)
    return sorted(left_out)
