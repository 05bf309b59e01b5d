"""Errors of calls on a GPU, told with what was called: the op, the user's line, the kernel, the arrays.

A kernel that does not compile, or that the driver refuses, fails where it is bound or launched, and that
call is named. A kernel that fails while it runs (an address outside of memory, say) is reported by whatever
call asks the
driver next, which need not be the guilty one: the text says so, and how to find that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...kernels.errors import DonatedError, KernelwrightError, LaunchError, NoKernelError
from ...kernels.settings import CUDA_SYNC_VARIABLE

if TYPE_CHECKING:
    from ..lower import Call

_LATE = (
    "It may be the error of an earlier call: the GPU works behind, and says what went wrong when it is asked "
    f"next. Run again with {CUDA_SYNC_VARIABLE}=1, or in `with kw.using(cuda_sync=True):`, which waits after "
    "each call and names the one that failed."
)


def told(calls: Sequence[Call]) -> str:
    """A call in words: `matmul (model.py:12) by matmul/cuda_triton/tiles: f32[2,3]@cuda:0, ... -> ...`; of
    several in one launch the first."""
    call = calls[0]
    more = f" and {len(calls) - 1} more in the same launch" if len(calls) > 1 else ""
    inputs = ", ".join("-" if place is None else str(place.spec) for place in call.inputs)
    outputs = ", ".join(str(place.spec) for place in call.outputs)
    line = f" ({call.node.where})" if call.node.where else ""
    return f"{call.node.op.name}{line} by {call.kernel_id}: {inputs} -> {outputs}{more}"


def is_of_device(error: BaseException) -> bool:
    """Whether an error is one that the driver reports, perhaps of what ran before."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("CUDA error" in text or "CUDA_ERROR" in text)


@contextmanager
def binding(calls: Sequence[Call]) -> Iterator[None]:
    """What goes wrong inside the block is told with the calls that are being bound or compiled.

    Raises:
        NoKernelError: when no CUDA kernel supports the call.
        LaunchError: for everything else.
    """
    try:
        yield
    except NoKernelError as error:
        where = calls[0].node.where
        line = f"{where}: " if where else ""
        raise NoKernelError(f"{line}{error}") from None
    except (KernelwrightError, Exception) as error:
        raise LaunchError(
            f"{told(calls)}: {type(error).__name__} while it was made ready: {error}"
        ) from error


@contextmanager
def launching(calls: Sequence[Call], waits: bool) -> Iterator[None]:
    """What goes wrong inside the block is told with the calls that are being launched.

    Args:
        calls: which, in one launch.
        waits: whether the block waits until it is done, so that the error is its own.

    Raises:
        LaunchError: for everything but an error in the arguments.
    """
    try:
        yield
    except DonatedError:
        raise
    except Exception as error:
        late = "" if waits or not is_of_device(error) else f"\n{_LATE}"
        raise LaunchError(
            f"{told(calls)}: {type(error).__name__} when it was launched: {error}{late}"
        ) from error


@contextmanager
def asking(what: str) -> Iterator[None]:
    """An error of the GPU that shows inside the block is told with what was done there, and how to find its
    call.

    Raises:
        LaunchError: in place of the driver's error.
    """
    try:
        yield
    except RuntimeError as error:
        raise late(error, what) from error


def late(error: RuntimeError, what: str) -> RuntimeError:
    """What to raise for an error of the GPU that showed while `what` was done: with how to find its call."""
    if isinstance(error, KernelwrightError) or not is_of_device(error):
        return error
    return LaunchError(f"{what}: {error}\n{_LATE}")
