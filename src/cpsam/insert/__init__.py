"""Inserts attention into any CNN by module path or by a named placement; it knows no backbone."""

from cpsam.insert import fuse_modules as fuse_modules  # teaches torch.ao what a place is
from cpsam.insert.config import attention_config, insert_from_config
from cpsam.insert.placement import PLACEMENTS
from cpsam.insert.surgery import attention_parameters, insert_attention, remove_attention

__all__ = [
    "PLACEMENTS",
    "attention_config",
    "attention_parameters",
    "insert_attention",
    "insert_from_config",
    "remove_attention",
]
