"""Weights: where they come from, how they are stored and checked."""

from seem.checkpoints.files import CheckpointError
from seem.checkpoints.registry import DEFAULT, MODELS, NamedModel, load_network

__all__ = ["DEFAULT", "MODELS", "CheckpointError", "NamedModel", "load_network"]
