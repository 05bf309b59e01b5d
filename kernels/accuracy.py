"""Whether a result is right: the float64 oracle, the error it is measured by, and the error that is allowed.

The error of one output element is measured against `scale`: the sum of the absolute values of the terms that
were added up for it, |A| |B| for a matmul. Rounding errors grow with that sum, not with the result: where
terms cancel, an error large beside the result is nobody's fault.

Two bounds must hold, and neither depends on who computed the result:

- `norm_rel`, the 2-norm of all errors over the 2-norm of all scales, is at most `budget(dtype, k)`;
- `max_scaled`, the largest error of one element over its scale, is at most `ELEMENT_FACTOR` times that.

With a vendor's result beside it, `norm_rel` must also be at most twice the vendor's plus one rounding.

A kernel that trades accuracy for speed declares so, `@kernel(..., error=ExtraError(...))`, and is then judged
by what it declared: a larger budget, whatever the vendor does, and for single elements the sums of the terms
that *it* adds up. Such kernels do not run under `kw.using(extra_error=False)`, and in float64 only under
`extra_error=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from .errors import NoKernelError
from .guard import Guarded
from .kernel import Config, ExtraError, Kernel
from .op import AnyArray, Attrs, Op, Sample, Specs, get_op
from .spec import ABSENT, TensorSpec, np_dtype

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half the distance from 1 to the next number: what rounding to nearest can be off, relatively."""

_SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
# 16-bit dtypes are added up in float32, by our kernels and by every vendor's.
_ACCUMULATED_IN = {"float16": "float32", "bfloat16": "float32"}

ELEMENT_FACTOR = 4.0
"""How much larger than `budget` the error of a single element may be: the largest of a million normally
distributed errors is five times their root mean square, and `budget` leaves a factor of four of room
itself."""


@dataclass(frozen=True)
class Error:
    """How far a result is from the exact one.

    Attributes:
        norm_rel: ||result - exact|| / ||scale|| in the 2-norm.
        max_scaled: the largest |result - exact| / scale of an element.
        worst: the index of that element, or of the first NaN or infinity that is out of place; None when all
            agree.
        mismatch: a sentence when NaNs or infinities are out of place, or the shape or dtype is wrong; else
            "". The two numbers are then infinite.
    """

    norm_rel: float
    max_scaled: float
    worst: tuple[int, ...] | None = None
    mismatch: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a result is right, and by how much.

    Attributes:
        ok: all bounds hold.
        error: of the result.
        vendor_error: of the vendor's result, or None.
        budget: the largest `error.norm_rel` allowed whatever the vendor does.
        text: one line; when not ok, what is wrong and where.
    """

    ok: bool
    error: Error
    vendor_error: Error | None
    budget: float
    text: str

    def __bool__(self) -> bool:
        return self.ok


def budget(dtype: str, reduction_length: int) -> float:
    """The largest `norm_rel` allowed for sums of `reduction_length` terms: 2 u + sqrt(k) u_acc.

    u is the unit roundoff of the dtype, for forming and storing the result; u_acc that of the dtype in which
    sums are kept. Rounding errors are as good as independent with mean zero, so k of them add up to about
    sqrt(k) u, not to the k u of the worst case (Higham, Mary: "A new approach to probabilistic rounding error
    analysis", SIAM J. Sci. Comput. 41, 2019, theorem 3.1). A plain loop over positive numbers comes to 0.25
    sqrt(k) u; blocked sums to less. For integers and bool the budget is 0.
    """
    if dtype not in UNIT_ROUNDOFF:
        return 0.0
    accumulated = UNIT_ROUNDOFF[_ACCUMULATED_IN.get(dtype, dtype)]
    return 2.0 * UNIT_ROUNDOFF[dtype] + sqrt(max(reduction_length, 0)) * accumulated


def oracle(
    op: Op, inputs: Sequence[AnyArray | None], attrs: Attrs | None = None
) -> tuple[NDArray[np.float64], ...]:
    """The exact outputs, as float64: by `op.exact` for float64 inputs where it is, else `op.reference`."""
    wide = widened(inputs)
    attrs = op.complete(attrs or {})
    exact = op.exact is not None and any(x is not None and x.dtype == np.float64 for x in inputs)
    compute = op.exact if exact and op.exact is not None else op.reference
    with np.errstate(all="ignore"):
        return tuple(np.asarray(out, np.float64) for out in compute(*wide, **attrs))


def scales(
    op: Op, inputs: Sequence[AnyArray | None], attrs: Attrs | None = None
) -> tuple[AnyArray, ...] | None:
    """For each output the sums of absolute terms that errors are measured against; None without them."""
    if op.magnitude is None:
        return None
    with np.errstate(all="ignore"):
        return tuple(
            np.asarray(out, np.float64) for out in op.magnitude(*widened(inputs), **op.complete(attrs or {}))
        )


def widened(inputs: Sequence[AnyArray | None]) -> list[AnyArray | None]:
    """The inputs as an op's reference takes them: floating-point ones as float64, None as None."""
    with np.errstate(invalid="ignore"):  # behind a packed weight are bits that are no numbers of its dtype
        return [x if x is None or x.dtype.kind in "iub" else x.astype(np.float64) for x in inputs]


def error(
    result: AnyArray, exact: AnyArray, *, scale: AnyArray | None = None, reduction_length: int = 1
) -> Error:
    """Measure a result.

    Args:
        result: what was computed, in its own dtype.
        exact: the float64 truth, of the same shape. NaNs must be where it has them, and infinities where it
            has them or where it is beyond the range of result's dtype.
        scale: what each element's error is measured against; |exact| unless given.
        reduction_length: terms in each sum. That many times the smallest normal number is not held against an
            element: below it, bits are lost, or all of them where the CPU flushes to zero.
    """
    dtype = TensorSpec.of(result).dtype
    if result.shape != exact.shape:
        return Error(inf, inf, None, f"the result has shape {result.shape}, not {exact.shape}")
    got = result.astype(np.float64)
    with np.errstate(all="ignore"):
        rounded = exact.astype(result.dtype).astype(np.float64)
        size = np.abs(exact) if scale is None else np.asarray(scale, np.float64)
        # Where the absolute terms exceed the dtype's range, a sum may overflow on the way to a finite result.
        judged = ~np.isfinite(rounded) | (size <= _largest(dtype))
        finite = np.isfinite(got) & np.isfinite(rounded)
        wrong = judged & ~finite & ~((got == rounded) | (np.isnan(got) & np.isnan(rounded)))
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            return Error(inf, inf, at, f"{got[at]:.9g} where {exact[at]:.9g} belongs")
        use = judged & finite
        lost = reduction_length * _SMALLEST_NORMAL.get(dtype, 0.0)
        off = np.where(use, np.maximum(np.abs(got - exact) - lost, 0.0), 0.0)
        size = np.where(use, size, 0.0)
        ratio = np.where(off > 0, off / size, 0.0)  # off by anything where no term is anything: infinite
    if not off.any():
        return Error(0.0, 0.0)
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    total = _norm(size)
    return Error(_norm(off) / total if total else inf, float(ratio[at]), at)


def _norm(x: AnyArray) -> float:
    """The 2-norm, safe from overflow and underflow."""
    largest = float(x.max(initial=0.0))
    return largest * float(np.linalg.norm((x / largest).ravel())) if largest else 0.0


def _largest(dtype: str) -> float:
    if dtype == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo(np_dtype(dtype)).max) if dtype in UNIT_ROUNDOFF else inf


def judge(
    result: AnyArray,
    exact: AnyArray,
    *,
    dtype: str,
    reduction_length: int,
    vendor: AnyArray | None = None,
    scale: AnyArray | None = None,
    extra: ExtraError | None = None,
    element_scale: AnyArray | None = None,
) -> Verdict:
    """Say whether a result is right.

    Args:
        result: what was computed.
        exact: the oracle's float64 array.
        dtype: what the result must be.
        reduction_length: terms in each sum, `op.reduction_length(specs)`.
        vendor: the vendor's result for the same inputs, or None.
        scale: what errors are measured against, from `scales`; |exact| unless given.
        extra: what the kernel declared that computed it.
        element_scale: what the errors of single elements are measured against, unless `scale`; elements
            for which it is not finite, or beyond the range of the dtype, are not judged.

    Returns:
        A Verdict, true when the result is right.
    """
    standard = budget(dtype, reduction_length)
    allowed = standard * (1.0 if extra is None else extra.factor)
    if TensorSpec.of(result).dtype != dtype:
        wrong = Error(inf, inf, None, f"the result is {result.dtype}, not {dtype}")
        return Verdict(False, wrong, None, allowed, f"wrong: {wrong.mismatch}")
    if element_scale is not None and result.shape == exact.shape:
        # Terms beyond the dtype's range: what becomes of them is not defined, but for other elements.
        within = element_scale <= _largest(dtype)
        result = np.where(within, result, exact.astype(result.dtype))
    found = error(result, exact, scale=scale, reduction_length=reduction_length)
    if element_scale is not None:
        single = error(result, exact, scale=element_scale, reduction_length=reduction_length)
        found = replace(found, max_scaled=single.max_scaled, worst=single.worst)
    theirs = None if vendor is None else error(vendor, exact, scale=scale, reduction_length=reduction_length)
    beside = None if extra is not None else theirs
    element = ELEMENT_FACTOR * (allowed if element_scale is None else standard)
    problems = _problems(found, beside, allowed, element, UNIT_ROUNDOFF.get(dtype, 0.0))
    if not problems:
        vendors = "" if theirs is None else f", the vendor's {theirs.norm_rel:.2g}"
        return Verdict(
            True, found, theirs, allowed, f"right: error {found.norm_rel:.2g} of {allowed:.2g}{vendors}"
        )
    where = (
        "" if found.worst is None else f"; worst at {list(found.worst)}: {_pair(result, exact, found.worst)}"
    )
    return Verdict(False, found, theirs, allowed, f"wrong: {'; '.join(problems)}{where}")


def _problems(found: Error, theirs: Error | None, allowed: float, element: float, u: float) -> list[str]:
    if found.mismatch:
        return [found.mismatch]
    problems = []
    if not found.norm_rel <= allowed:
        problems.append(f"the relative error of the whole is {found.norm_rel:.3g}, allowed {allowed:.3g}")
    if not found.max_scaled <= element:
        problems.append(f"the relative error of an element is {found.max_scaled:.3g}, allowed {element:.3g}")
    if theirs is not None and not found.norm_rel <= 2 * theirs.norm_rel + u:
        problems.append(
            f"the error {found.norm_rel:.3g} is above twice the vendor's {theirs.norm_rel:.3g} plus {u:.3g}"
        )
    return problems


def _pair(result: AnyArray, exact: AnyArray, at: tuple[int, ...]) -> str:
    return f"{float(result[at]):.9g}, exact {float(exact[at]):.9g}"


def check_kernel(
    kernel: Kernel,
    sample: Sample,
    config: Config | None = None,
    vendor: AnyArray | None = None,
    threads: int = 1,
    outputs: Sequence[TensorSpec] | None = None,
) -> Verdict:
    """Run a kernel on one sample in memory laid out to catch it, and judge what it did.

    Inputs are copied, strides and all, into buffers whose gaps and surroundings are NaN, so that reading
    beside them shows in the result; they must be bit for bit the same afterwards. Outputs start as NaN, so
    that an element that was left out shows, and their surroundings must not change.

    Args:
        kernel: the kernel.
        sample: the call.
        config: the kernel's configuration; its default for the call unless given.
        vendor: the vendor's (first) output for the same call.
        threads: how many threads the kernel may use.
        outputs: specs of the outputs, to try other layouts; row-major unless given.

    Raises:
        NoKernelError: when the kernel does not support the call: ask `kernel.why_not` first.
        Exception: whatever the kernel raises.
    """
    op = get_op(kernel.op)
    attrs = op.complete(sample.attrs)
    inputs = [None if array is None else Guarded.copy_of(array) for array in sample.inputs]
    in_specs = tuple(ABSENT if guarded is None else TensorSpec.of(guarded.array) for guarded in inputs)
    out_specs = tuple(outputs) if outputs is not None else op.infer(in_specs, **attrs)
    specs = (*in_specs, *out_specs)
    reason = kernel.why_not(specs, attrs)
    if reason is not None:
        raise NoKernelError(f"{kernel.id} cannot run {sample!r}: {reason}.")
    results = [Guarded.filled(spec) for spec in out_specs]
    if config is None:
        config = kernel.configurations(specs, attrs, threads)[0]
    arrays = [None if guarded is None else guarded.array for guarded in (*inputs, *results)]
    kernel.bind(specs, attrs, config, threads)(*arrays)
    for name, guarded in zip(op.inputs, inputs, strict=True):
        if guarded is not None and not guarded.untouched():
            return _bad(f"wrong: the kernel wrote to its input {name}, or beside it")
    if not all(guarded.surroundings_untouched() for guarded in results):
        return _bad("wrong: the kernel wrote outside its output")
    truth = Truth.of(op, sample.inputs, attrs)
    return truth.judge([g.array for g in results], specs, vendor, kernel.error)


@dataclass(frozen=True, eq=False)
class Truth:
    """What the outputs of one call should be, worked out once to judge any number of results.

    Attributes:
        outputs: the oracle's.
        scales: what the errors of each output are measured against, or None for the outputs themselves.
        reduction_length: terms in each sum.
        inputs, attrs: of the call.
    """

    outputs: tuple[NDArray[np.float64], ...]
    scales: tuple[AnyArray | None, ...]
    reduction_length: int
    inputs: tuple[AnyArray | None, ...] = ()
    attrs: Attrs = field(default_factory=dict)

    @classmethod
    def of(cls, op: Op, inputs: Sequence[AnyArray | None], attrs: Attrs | None = None) -> Truth:
        """The truth about a call of `op`."""
        complete = op.complete(attrs or {})
        outputs = oracle(op, inputs, complete)
        specs = tuple(TensorSpec.of(array) for array in inputs)
        return cls(
            outputs,
            scales(op, inputs, complete) or (None,) * len(outputs),
            op.reduction_length(specs, **complete),
            tuple(inputs),
            complete,
        )

    def judge(
        self,
        results: Sequence[AnyArray],
        specs: Specs,
        vendor: AnyArray | None = None,
        extra: ExtraError | None = None,
    ) -> Verdict:
        """Judge all outputs of a kernel: the first verdict that is not ok, or else the first.

        Args:
            results: what was computed, an array for each output.
            specs: of the call; the last ones are those of the outputs.
            vendor: the vendor's first output.
            extra: what the kernel declared.
        """
        verdicts = []
        element_scales: tuple[AnyArray | None, ...] = (None,) * len(self.outputs)
        if extra is not None and extra.magnitude is not None:
            with np.errstate(all="ignore"):
                element_scales = extra.magnitude(*widened(self.inputs), **self.attrs)
        for place, spec in enumerate(specs[len(specs) - len(results) :]):
            verdict = judge(
                results[place],
                self.outputs[place],
                dtype=spec.dtype,
                reduction_length=self.reduction_length,
                vendor=None if place else vendor,
                scale=self.scales[place],
                extra=extra,
                element_scale=element_scales[place],
            )
            if not verdict.ok:
                return verdict
            verdicts.append(verdict)
        return verdicts[0]


def _bad(text: str) -> Verdict:
    return Verdict(False, Error(inf, inf, None, text), None, 0.0, text)
