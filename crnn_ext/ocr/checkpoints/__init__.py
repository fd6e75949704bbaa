"""Checkpoint files (weights, architecture, charset, preprocessing), and their import and export."""

from .architecture import Architecture, Network
from .checkpoint import Checkpoint, CheckpointError, CheckpointWarning, load_checkpoint, save_checkpoint

__all__ = [
    "Architecture",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Network",
    "load_checkpoint",
    "save_checkpoint",
]
