"""Whole networks, each written twice: as kernelwright and as PyTorch have it, side by side in one file.

Attributes of the two have the same names, so that one's parameters load into the other.
"""

from .network import Network as Network
from .network import get_network as get_network
from .network import networks as networks
