"""`kernelwright lab`: experiments on the laboratory itself, a file each."""

from . import gate, kill, noise, tricks
from .sub import lab

__all__ = ["gate", "kill", "lab", "noise", "tricks"]
