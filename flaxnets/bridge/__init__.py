"""Weights both ways between NNX models and torch's names and layouts, without torch."""

from flaxnets.bridge.convert import BridgeError, load_state_dict, state_dict
from flaxnets.bridge.files import load, read, save, write
from flaxnets.bridge.optimizer import load_optimizer_state_dict, optimizer_state_dict
from flaxnets.bridge.rules import Leaf, TorchOnly, register

__all__ = [
    "BridgeError",
    "Leaf",
    "TorchOnly",
    "load",
    "load_optimizer_state_dict",
    "load_state_dict",
    "optimizer_state_dict",
    "read",
    "register",
    "save",
    "state_dict",
    "write",
]
