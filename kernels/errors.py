"""The errors that Kernelwright raises. Each says what was wrong, with the values, and what to write instead.

Every class also derives from the built-in exception that fits, so `except ValueError` keeps working for
callers who do not know this package, and `except KernelwrightError` catches everything that this package
refuses.
"""

from __future__ import annotations

from collections.abc import Iterable


class KernelwrightError(Exception):
    """Base of every error that this package raises on purpose."""


class ShapeError(KernelwrightError, ValueError):
    """Shapes that do not fit each other, or that the operation does not take."""


class DTypeError(KernelwrightError, TypeError):
    """A dtype, or an object that is no array of numbers at all, that the operation does not take."""


class OutOfRangeError(KernelwrightError, IndexError):
    """An index that names no place of an array."""


class LayoutError(KernelwrightError, ValueError):
    """Memory that cannot be used as it is laid out: a read-only, unaligned or zero-stride output."""


class DeviceError(KernelwrightError, ValueError):
    """A device that is unknown or not there, or arrays on different devices."""


class OverlapError(KernelwrightError, ValueError):
    """An output that shares memory with an input."""


class NoKernelError(KernelwrightError, LookupError):
    """No kernel supports the call, and falling back was forbidden (`strict`)."""


class RegistrationError(KernelwrightError, ValueError):
    """A kernel or an operation that cannot be registered as it was declared."""


class ConfigError(KernelwrightError, ValueError):
    """A setting, an environment variable or a measurement with a value that means nothing."""


class WrongResultError(KernelwrightError, ArithmeticError):
    """A kernel computed something that is not the operation's result."""


class GraphError(KernelwrightError, ValueError):
    """A graph that is not sound, or that cannot be made of what was given."""


class TraceError(KernelwrightError, TypeError):
    """A traced function asked for numbers that are not there yet, or let a traced Array out."""


class GradientError(KernelwrightError, TypeError):
    """A gradient of something that has none: an integer, an op without a rule, a result that is no number."""


class DonatedError(KernelwrightError, ValueError):
    """An Array whose memory was given away to a compiled function."""


class NonFiniteError(KernelwrightError, ArithmeticError):
    """A step of a compiled function gave NaN or infinity, under `kw.debug_nans()`."""


class LaunchError(KernelwrightError, RuntimeError):
    """A call on a GPU that could not be launched, or that failed there."""


class CacheWarning(UserWarning):
    """The tuning cache could not be read or written; the program goes on without it."""


class ExtensionWarning(UserWarning):
    """A kernel file of an extender could not be loaded; everything else works."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A sentence ` Did you mean 'matmul'?` for the known word nearest to `wrong`, or '' when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
