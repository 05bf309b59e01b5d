"""`kernelwright lab`: experiments on the laboratory itself, a file each."""

from . import errors, gate, kill, noise, tricks
from .sub import lab

__all__ = ["errors", "gate", "kill", "lab", "noise", "tricks"]
