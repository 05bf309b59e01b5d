"""One call, now: check the inputs, infer the outputs, choose a kernel, run it.

Every eager operation takes this path, so the checks and their texts are the same for all of them. Nothing is
written before everything has been checked. What was found out for a call is kept in the memo of the settings
in force, so that the next call with equal specs and attributes is only looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels import dispatch
from ..kernels.allocate import Allocate, allocator
from ..kernels.errors import DTypeError, LayoutError, OverlapError, RegistrationError, ShapeError, TraceError
from ..kernels.explain import Explanation
from ..kernels.op import Op, get_op
from ..kernels.spec import TensorSpec, row_major
from .array import Array
from .views import view_at

_ndarray, _may_share = np.ndarray, np.may_share_memory
Operand = Array | NDArray[Any]
_NO_ATTRS: Mapping[str, Any] = {}
# Deciding whether two strided arrays share an element is NP-hard in general; this many steps (milliseconds)
# settle every case that occurs, and what they do not settle counts as an overlap.
_OVERLAP_WORK = 100_000


def call(
    op: Op,
    inputs: Sequence[Operand | None],
    attrs: Mapping[str, Any] = _NO_ATTRS,
    out: Operand | None = None,
) -> Array:
    """Run an op that has one output.

    Args:
        op: the operation.
        inputs: Arrays or NumPy arrays, one for each name in `op.inputs`, None for an optional one that is
            left out; never written to. All of them on one GPU: Arrays there, or torch CUDA tensors.
        attrs: the op's attributes, hashable; defaults are filled in.
        out: where the result goes, an Array or NumPy array of exactly its shape and dtype. It must be
            writeable, share no memory with an input, and have elements side by side along its last or last
            but one axis.

    Returns:
        The result. With `out` an Array, that very Array; with `out` a NumPy array, an Array of its memory.

    Raises:
        ShapeError, DTypeError, LayoutError, OverlapError: before anything is written.
        NoKernelError: under strict settings, when only a fallback could run the call.
    """
    results = _run(op, inputs, attrs, out)
    return out if isinstance(out, Array) else results[0]


def call_all(
    op: Op, inputs: Sequence[Operand | None], attrs: Mapping[str, Any] = _NO_ATTRS
) -> tuple[Array, ...]:
    """Run an op with any number of outputs, each in new memory. Arguments and errors are those of `call`."""
    return _run(op, inputs, attrs, None)


def _run(
    op: Op, inputs: Sequence[Operand | None], attrs: Mapping[str, Any], out: Operand | None
) -> tuple[Array, ...]:
    """`call` and `call_all`, a few microseconds long once a call like it has been made."""
    arrays: list[Any] = []
    key: list[Any] = [op, out is None, *attrs, *attrs.values()]
    for value in inputs if out is None else (*inputs, out):
        array = value._data if type(value) is Array else value
        if type(array) is _ndarray:
            # All that a spec says, as NumPy has it. An array with memory of its own is always aligned.
            key += (array.shape, array.strides, array.dtype, array.base is None or array.flags.aligned)
        elif array is None:
            key.append(None)
        else:
            if getattr(array, "on_cuda", False) or (hasattr(array, "is_cuda") and _any_on_cuda(inputs, out)):
                return _recorded(op, inputs, attrs, out) or _cuda().run(op, inputs, attrs, out)
            if isinstance(array, Array) and (traced := _recorded(op, inputs, attrs, out)) is not None:
                return traced
            array = operand(op, (*op.inputs, "out")[len(arrays)], array)
            key += (array.shape, array.strides, array.dtype, array.flags.aligned)
        arrays.append(array)
    if out is None:
        launch, outputs = dispatch.recall(op, tuple(key), attrs, lambda: _bound(op, arrays, attrs))
        if not outputs:
            return (Array(launch(arrays[0])),)
        targets = [allocate(shape, dtype) for allocate, shape, dtype in outputs]
        launch(*arrays, *targets)
        return tuple(map(Array, targets))
    # Shape, dtype and layout of `out` are in the key; where it lies is looked at in each call.
    *arrays, target = arrays
    launch, _ = dispatch.recall(op, tuple(key), attrs, lambda: _bound(op, arrays, attrs, target))
    if not target.flags.writeable or any(a is not None and _may_share(a, target) for a in arrays):
        check_out(op, target, TensorSpec.of(target), arrays)
    if target.size:
        launch(*arrays, target)
    return (Array(target),)


def _recorded(
    op: Op, inputs: Sequence[Operand | None], attrs: Mapping[str, Any], out: Operand | None
) -> tuple[Array, ...] | None:
    """The call as part of a graph, where one of its inputs is a Tracer; None for other Arrays."""
    from .trace import recorded

    traced = recorded(op, inputs, attrs)
    if traced is not None and out is not None:
        raise TraceError(
            f"{op.name}: a traced function makes new Arrays and writes into none; leave out=... away, and "
            "return the result."
        )
    return traced


def _cuda() -> Any:
    """The module `engine.cuda`, imported by the first call with an Array that is not on the CPU."""
    global _cuda
    from . import cuda

    _cuda = lambda: cuda  # noqa: E731
    return cuda


def _any_on_cuda(inputs: Sequence[Any], out: Any) -> bool:
    """Whether one of the values is on a GPU."""
    is_on_cuda = _cuda().is_on_cuda
    return any(is_on_cuda(value) for value in (*inputs, out) if value is not None)


def _bound(
    op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any], out: NDArray[Any] | None = None
) -> tuple[Callable[..., Any], list[tuple[Allocate, tuple[int, ...], np.dtype[Any]]]]:
    """What runs a call, and of each output its allocator, shape and dtype; checks everything first.

    Where the output is a view of the first input (`Op.view`): what makes the view, and no output.
    """
    specs = tuple(map(TensorSpec.of, operands(op, arrays)))
    complete = op.complete(attrs)
    outputs = op.infer(specs, **complete)
    if out is not None:
        (expected,) = outputs
        check_out(op, out, expected, arrays)
        outputs = (TensorSpec.of(out),)
    elif op.view is not None:
        place = op.view(specs[0], **complete)
        if place is not None:
            return _viewer(specs[0], *place), []
    launch = dispatch.bind(op, (*specs, *outputs), complete)
    return launch, [(allocator(s.shape, s.np_dtype), s.shape, s.np_dtype) for s in outputs]


def _viewer(
    spec: TensorSpec, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes of an array of `spec` its view `start` bytes on, of that shape and with those strides."""
    dtype = spec.np_dtype
    repeats = any(stride == 0 and length > 1 for stride, length in zip(strides, shape, strict=True))

    def view(x: NDArray[Any]) -> NDArray[Any]:
        # Elements that stand for several must not be written.
        return view_at(x, start, shape, strides, dtype, repeats or not x.flags.writeable)

    # The short way, for memory that Python's buffers can describe.
    if spec.layout is None and spec.dtype != "bfloat16" and not repeats and 0 not in shape:
        return lambda x: np.ndarray(shape, dtype, x, start, strides)
    return view


def operands(op: Op, inputs: Sequence[Operand | None]) -> list[NDArray[Any] | None]:
    """The NumPy arrays behind an op's inputs; None for an optional one that is left out."""
    return [
        None if value is None and name in op.optional else operand(op, name, value)
        for name, value in zip(op.inputs, inputs, strict=True)
    ]


def operand(op: Op, name: str, value: Any) -> NDArray[Any]:
    """The NumPy array behind an argument, without a copy.

    Raises:
        DTypeError: when it is neither an Array nor a NumPy array, or a masked array, whose mask would be
            lost.
    """
    if isinstance(value, Array):
        return value._data
    if not isinstance(value, np.ndarray):
        raise DTypeError(
            f"{op.name}: {name} must be a kernelwright Array or a NumPy array, got {type(value).__name__}; "
            f"write kw.array({name}), or kw.from_dlpack({name}) for another framework's tensor."
        )
    if hasattr(value, "mask"):
        raise DTypeError(
            f"{op.name}: {name} is a masked array, and its mask would be lost; fill it first: "
            f"{name}.filled(0)."
        )
    # A subclass may index and transpose in ways of its own: take the plain view of its memory.
    return np.asarray(value)


def check_out(op: Op, out: NDArray[Any], expected: TensorSpec, inputs: Sequence[NDArray[Any] | None]) -> None:
    """Refuse an `out` that cannot take the result.

    Args:
        op: the operation, for its name and the names of its inputs.
        out: the array offered.
        expected: the spec of the result.
        inputs: the arrays that are read.

    Raises:
        ShapeError: for another shape than the result's.
        DTypeError: for another dtype than the result's.
        LayoutError: when it is read-only, unaligned, has a stride of 0 or below, overlaps itself, or has no
            two neighbouring elements side by side along its last or last but one axis.
        OverlapError: when it shares an element with an input.
    """
    if out.shape != expected.shape:
        raise ShapeError(
            f"{op.name}: out has shape {out.shape}, but the result has {expected.shape}; write "
            f"out = np.empty({expected.shape}, {expected.dtype!r})."
        )
    if out.dtype != expected.np_dtype:
        raise DTypeError(
            f"{op.name}: out is {out.dtype}, but the result is {expected.dtype}, and nothing is converted "
            f"silently; write out = np.empty({expected.shape}, {expected.dtype!r})."
        )
    flags = out.flags
    if not flags.writeable:
        raise LayoutError(f"{op.name}: out ({expected}) is read-only; give an array that owns its memory.")
    if not flags.aligned:
        raise LayoutError(f"{op.name}: out starts at an unaligned address; write out = np.empty_like(out).")
    if not flags.c_contiguous:
        reason = layout_problem(out)
        if reason is not None:
            raise LayoutError(
                f"{op.name}: out of shape {out.shape} has byte strides {out.strides}: {reason}. Write "
                f"out = np.empty({expected.shape}, {expected.dtype!r}) and copy the result from there."
            )
    for name, array in zip(op.inputs, inputs, strict=True):
        if array is not None and overlaps(out, array):
            raise OverlapError(
                f"{op.name}: out shares memory with {name}, which is read while out is written; write "
                f"{op.name}({', '.join(op.inputs)}, out=np.empty_like(out)), or leave out away."
            )


def layout_problem(out: NDArray[Any]) -> str | None:
    """Why results cannot be written to memory laid out like `out`; None when they can."""
    if not out.size:
        return None
    strides = TensorSpec.of(out).layout or row_major(out.shape, out.itemsize)
    axes = [(stride, length) for stride, length in zip(strides, out.shape, strict=True) if length > 1]
    if any(stride == 0 for stride, _ in axes):
        return "a stride of 0 puts several elements in one place"
    if any(stride < 0 for stride, _ in axes):
        return "negative strides run through memory backwards"
    reach = out.itemsize
    for stride, length in sorted(axes):
        if stride < reach:
            return "its rows overlap each other"
        reach = (length - 1) * stride + reach
    if axes and out.itemsize not in strides[-2:]:
        return "neither its last nor its last but one axis has its elements side by side"
    return None


def overlaps(x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Whether two arrays share an element: exact, or True in the rare case that takes too long to settle."""
    if not np.may_share_memory(x, y):
        return False
    try:
        # NumPy's stub knows only two of the values that max_work may have.
        return np.shares_memory(x, y, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def explain(function: Callable[..., Any] | Op | str, /, *inputs: Any, **attrs: Any) -> Explanation:
    """What runs a call, what else could, and why not: `print(kw.explain(kw.matmul, a, b))`.

    Args:
        function: a function of this package such as `kw.matmul`, an Op, or an op's name. A function whose
            arguments are not the op's own has an attribute `prepare(*args, **kwargs)` that returns
            `(op, inputs, attrs)` for them.
        *inputs: Arrays, NumPy arrays, or TensorSpecs for arrays that need not exist.
        **attrs: the op's attributes, and `out`, an array or a TensorSpec.

    Raises:
        RegistrationError: when `function` is no operation.
    """
    out = attrs.pop("out", None)
    prepare = getattr(function, "prepare", None)
    if prepare is None:
        op = _op_of(function)
    else:
        op, inputs, attrs = prepare(*inputs, **attrs)
    values = [*zip(op.inputs, inputs, strict=False), *([] if out is None else [("out", out)])]
    specs = [_spec_of(op, name, v) for name, v in values]
    if len(inputs) != len(op.inputs):
        raise DTypeError(f"{op.signature()} takes {len(op.inputs)} inputs, got {len(inputs)}.")
    return dispatch.explain(op, specs, attrs)


def _spec_of(op: Op, name: str, value: Any) -> TensorSpec:
    """The spec of what `explain` was given for an input."""
    if isinstance(value, TensorSpec):
        return value
    if (
        value is not None
        and type(value) is not Array
        and (isinstance(value, Array) or hasattr(value, "is_cuda"))
    ):
        cuda = _cuda()
        if cuda.is_on_cuda(value):
            return cuda.spec_of(cuda.tensor_of(op, name, value))  # type: ignore[no-any-return]
    return TensorSpec.of(None if value is None and name in op.optional else operand(op, name, value))


def _op_of(function: Callable[..., Any] | Op | str) -> Op:
    if isinstance(function, Op):
        return function
    name = function if isinstance(function, str) else getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise RegistrationError(f"kw.explain takes an operation such as kw.matmul first, got {function!r}.")
    return get_op(name)
