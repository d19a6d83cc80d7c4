"""Translates the names of older versions, in which the last norm of a block was ``batch_norm``."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

OLD, NEW = "batch_norm", "post_norm"
BLOCKS = frozenset(
    {"cpsam", "non_local", "norm_only", "bare_fusion", "constant_gate", "conv_control"}
)
"""The blocks that had the old name."""


def with_current_names(
    tensors: Mapping[str, Tensor], config: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns tensors under the names that blocks use today, and a note if a name was old.

    Only names inside an inserted block of ours change. A host may use the old name itself.

    Args:
        tensors: State dicts. A name may follow a prefix that ends in ``/``.
        config: What :func:`cpsam.attention_config` said of the network that was saved.

    Example:
        >>> config = [{"at": "layer1", "attention": "cpsam", "arguments": {}}]
        >>> with_current_names({"layer1.attention.0.batch_norm.bias": Tensor()}, config)[0].keys()
        dict_keys(['layer1.attention.0.post_norm.bias'])
    """
    counts: Counter[str] = Counter()
    blocks = []
    for entry in config:
        if entry["attention"] in BLOCKS:
            blocks.append(re.escape(f"{entry['at']}.attention.{counts[entry['at']]}."))
        counts[entry["at"]] += 1
    old = re.compile(rf"((?:.*/)?(?:{'|'.join(blocks)})){OLD}\.")
    renamed = {name: old.sub(rf"\1{NEW}.", name) for name in tensors if blocks and old.match(name)}
    note = f"{len(renamed)} tensors have the name {OLD} of an older version, which is now {NEW}"
    current = {renamed.get(name, name): tensor for name, tensor in tensors.items()}
    return current, [note] if renamed else []
