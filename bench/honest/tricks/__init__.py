"""Kernels that cheat, each in a way of its own: what the inspection is tried on. Nothing else imports them.

Each is right on the op's samples, or on most of them, and cheats on larger operands.
"""
