"""Which kernel runs a call, and why: `choose`, and `bind`, which makes the choice ready to run.

The order, among the kernels that support the call: those of a rank above 0, the highest first; then those
with a model, the lowest predicted time first; then the rest by rank. Where the tuning cache has times for the
exact problem, among them one of the kernel that would be chosen without, the fastest by measurement goes
before all. When no kernel supports the call, the op's NumPy reference computes it, which is counted and
shown, or refused under `strict`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from . import registry, tuning
from .errors import DeviceError, DTypeError, NoKernelError, ShapeError, did_you_mean
from .explain import Explanation, describe_candidates
from .kernel import Config, Kernel, Launch, nothing_to_do
from .op import Attrs, Op, Specs
from .settings import STRICT_VARIABLE, Settings, current
from .spec import TensorSpec

T = TypeVar("T")
REFERENCE = "reference"
_MEMO_LIMIT = (
    4096  # launches kept for one combination of settings; a program with ever new shapes starts afresh
)

_fallbacks: Counter[str] = Counter()
_FALLBACKS_LOCK = threading.Lock()


@dataclass(frozen=True)
class Candidate:
    """One kernel beside one call.

    Attributes:
        kernel: the kernel.
        config: its best configuration for the call, by measurement or else prediction or else its default;
            None when it cannot run the call.
        reason_not: why it cannot run the call, or None.
        predicted_s: seconds by its model for that configuration, or None.
        tuned_s: seconds measured for that configuration on this machine, or None.
    """

    kernel: Kernel
    config: Config | None = None
    reason_not: str | None = None
    predicted_s: float | None = None
    tuned_s: float | None = None


@dataclass(frozen=True)
class Choice:
    """What runs a call.

    Attributes:
        kernel: the kernel, or None for the op's reference.
        config: the kernel's configuration.
        why: one line.
        candidates: every kernel that was considered, the best first.
        specs: of the inputs, then the outputs.
        fallback: what was fallen back from and to, or None when this is what was asked for.
    """

    op: Op
    specs: Specs
    attrs: Attrs
    threads: int
    kernel: Kernel | None
    config: Config
    why: str
    candidates: tuple[Candidate, ...]
    fallback: str | None = None

    def bind(self) -> Launch:
        """A function `launch(*inputs, *outputs)` that runs the choice and counts it if it is a fallback."""
        if self.kernel is None and on_cuda(self.specs):
            raise NoKernelError(_no_cuda_kernel(self))
        if self.kernel is None:
            launch = _reference_launch(self.op, self.attrs)
        else:
            launch = self.kernel.bind(self.specs, self.attrs, self.config, self.threads)
        return launch if self.fallback is None else _counting(launch, self.fallback)


def complete_specs(op: Op, specs: Sequence[TensorSpec], attrs: Attrs) -> Specs:
    """The specs of inputs and outputs, from those of the inputs alone or already of both.

    Raises:
        ShapeError, DTypeError: by the op, when the inputs do not fit.
        DeviceError: when they are on several devices.
    """
    count = len(op.inputs)
    inputs = tuple(specs[:count])
    inferred = op.infer(inputs, **attrs)
    if len({spec.device for spec in inputs if spec.present}) > 1:
        places = ", ".join(
            f"{name} on {spec.device}" for name, spec in zip(op.inputs, inputs, strict=True) if spec.present
        )
        raise DeviceError(
            f"{op.name}: the inputs are on several devices: {places}; move them to one of them."
        )
    outputs = tuple(specs[count:]) or inferred
    if len(outputs) != len(inferred):
        raise DTypeError(f"{op.name} has {len(inferred)} outputs, got specs of {len(outputs)}.")
    for given, right in zip(outputs, inferred, strict=True):
        if (given.shape, given.dtype, given.device) != (right.shape, right.dtype, right.device):
            raise ShapeError(f"{op.name}: the output is {right}, so it cannot go to {given}.")
    return (*inputs, *outputs)


def choose(
    op: Op,
    specs: Sequence[TensorSpec],
    attrs: Attrs | None = None,
    settings: Settings | None = None,
    tuned: bool = True,
) -> Choice:
    """Decide which kernel and configuration run a call.

    Args:
        op: the operation.
        specs: of the inputs; or of the inputs and then the outputs, when the outputs are not row-major.
        attrs: the op's attributes; defaults are filled in.
        settings: threads, backend and strictness; those in force unless given.
        tuned: whether measured times count; without them it is what an untuned call runs.

    Raises:
        ShapeError, DTypeError: by the op, when the inputs do not fit.
        NoKernelError: under `strict`, when no kernel supports the call, or none of the forced backend.
    """
    under = settings or current()
    attrs = op.complete(attrs or {})
    specs = complete_specs(op, specs, attrs)
    if on_cuda(specs):  # there, the settings' number of threads says nothing
        under = Settings(1, under.backend, under.strict, under.extra_error)
    kernels = registry.kernels_for(op.name, device_of(specs))
    candidates = _candidates(op, kernels, specs, attrs, under, tuned)
    draft = Choice(op, specs, attrs, under.threads, None, {}, "", tuple(candidates))
    if under.backend == REFERENCE:
        return replace(draft, why="the reference was asked for")
    able = [c for c in candidates if c.reason_not is None]
    forced = [c for c in able if _matches(c.kernel, under.backend)]
    if forced:
        return _pick(draft, forced, "")
    if under.strict:
        raise NoKernelError(_refusal(draft, under))
    lead = "" if under.backend is None else f"no kernel matches backend {under.backend!r} here; "
    if able:
        picked = _pick(draft, able, lead)
        return replace(picked, fallback=f"{op.name}: {under.backend} -> {able[0].kernel.id}")
    if on_cuda(specs):
        return replace(draft, why=f"{lead}no CUDA kernel supports the call")
    why = f"{lead}no kernel supports the call: the NumPy reference computes it, slowly"
    return replace(draft, why=why, fallback=f"{op.name}: {under.backend or 'kernel'} -> {REFERENCE}")


def device_of(specs: Specs) -> str:
    """The device of a call: that of the first input that is there."""
    return next((spec.device for spec in specs if spec.present), "cpu")


def on_cuda(specs: Specs) -> bool:
    """Whether a call is one for a GPU."""
    return device_of(specs) != "cpu"


def _matches(kernel: Kernel, backend: str | None) -> bool:
    return backend is None or backend in (kernel.language, kernel.name, kernel.id)


def _pick(draft: Choice, able: list[Candidate], lead: str) -> Choice:
    best = able[0]
    assert best.config is not None
    if len(able) == 1:
        tuned = ", in its fastest measured configuration" if best.tuned_s is not None else ""
        why = f"the only kernel that supports the call{tuned}"
    elif best.tuned_s is not None:
        why = f"the fastest of {sum(c.tuned_s is not None for c in able)} measured"
    elif best.kernel.rank <= 0 and best.predicted_s is not None:
        why = f"the fastest of {sum(c.predicted_s is not None for c in able)} predicted"
    else:
        why = f"rank {best.kernel.rank}, the highest of {len(able)}"
    return replace(draft, kernel=best.kernel, config=best.config, why=lead + why)


def _candidates(
    op: Op, kernels: Sequence[Kernel], specs: Specs, attrs: Attrs, under: Settings, with_times: bool
) -> list[Candidate]:
    """All kernels beside the call, the best first."""
    measured = tuning.known(op, specs, attrs, under.threads, kernels) if with_times else {}
    plain = sorted((_consider(kernel, specs, attrs, under, {}) for kernel in kernels), key=_order)
    if not measured:
        return plain
    tuned = {kernel: _consider(kernel, specs, attrs, under, measured) for kernel in kernels}
    # Times of some kernels say nothing about one that was never timed: after an edit of the best kernel, its
    # own times are void, and a slow one that still has some must not take its place.
    if tuned[plain[0].kernel].tuned_s is None:
        return plain
    return sorted(tuned.values(), key=_order)


def _consider(
    kernel: Kernel, specs: Specs, attrs: Attrs, under: Settings, measured: tuning.Measured
) -> Candidate:
    reason = kernel.why_not(specs, attrs)
    if reason is None and kernel.error is not None and not _may_err(kernel, specs[0].dtype, under):
        reason = kernel.error.refusal(under.extra_error)
    if reason is not None:
        return Candidate(kernel, reason_not=reason)
    try:
        return _best_option(kernel, specs, attrs, under.threads, measured)
    except Exception as error:  # an extender's configs() or model(): say whose, and go on without the kernel
        return Candidate(
            kernel, reason_not=f"its configs() or model() raised {type(error).__name__}: {error}"
        )


def _may_err(kernel: Kernel, dtype: str, under: Settings) -> bool:
    """Whether a kernel that declares an extra error may run."""
    if kernel.error is None or not kernel.error.explicit:
        return under.allows_extra_error(dtype)
    named = under.backend in (kernel.name, kernel.id) and under.extra_error is None
    return under.extra_error is True or named


def _best_option(
    kernel: Kernel, specs: Specs, attrs: Attrs, threads: int, measured: tuning.Measured
) -> Candidate:
    options = []
    for place, config in enumerate(kernel.configurations(specs, attrs, threads)):
        tuned = measured.get(tuning.time_key(kernel, config))
        predicted = kernel.predict(specs, attrs, config, threads)
        option = Candidate(kernel, config, predicted_s=predicted, tuned_s=tuned)
        options.append((_order(option), place, option))
    return min(options, key=lambda option: option[:2])[2]


def _order(candidate: Candidate) -> tuple[float, ...]:
    """Sorts candidates: measured, ranked above 0, predicted, the rest by rank, those that cannot run."""
    if candidate.reason_not is not None:
        return (4.0, 0.0)
    if candidate.tuned_s is not None:
        return (0.0, candidate.tuned_s)
    rank, predicted = candidate.kernel.rank, candidate.predicted_s
    last = float("inf") if predicted is None else predicted
    if rank > 0:
        return (1.0, -rank, last)
    return (3.0, -rank) if predicted is None else (2.0, predicted)


def _refusal(draft: Choice, under: Settings) -> str:
    call = f"{draft.op.name}({', '.join(map(str, draft.specs[: len(draft.op.inputs)]))})"
    wanted = "no kernel" if under.backend is None else f"no kernel of backend {under.backend!r}"
    kernels = [candidate.kernel for candidate in draft.candidates]
    names = {word for k in kernels for word in (k.language, k.name, k.id)}
    hint = did_you_mean(under.backend, names) if under.backend is not None else ""
    notes = registry.missing(draft.op.name, device_of(draft.specs))
    return (
        f"{wanted} supports {call}, and strict settings forbid falling back.{hint}\n"
        f"{describe_candidates(draft, notes)}\n"
        f"Write kw.using(strict=False), or unset {STRICT_VARIABLE}, to let another kernel or the NumPy "
        f"reference compute it."
    )


def _no_cuda_kernel(choice: Choice) -> str:
    inputs = ", ".join(map(str, choice.specs[: len(choice.op.inputs)]))
    notes = registry.missing(choice.op.name, device_of(choice.specs))
    return (
        f"no CUDA kernel supports {choice.op.name}({inputs}), and nothing is copied to the CPU unasked.\n"
        f"{describe_candidates(choice, notes)}\n"
        "Write kw.array(x, device='cpu') of each input to compute it there."
    )


def bind(op: Op, specs: Sequence[TensorSpec], attrs: Attrs | None = None) -> Launch:
    """The launch for a call under the settings in force, worked out once and kept in their memo.

    Args and errors are those of `choose`. The launch takes `(*inputs, *outputs)` and checks nothing.
    """
    under = current()
    attrs = op.complete(attrs or {})

    def chosen() -> Launch:
        complete = complete_specs(op, specs, attrs)
        empty = not any(spec.size for spec in complete[len(op.inputs) :])
        return nothing_to_do if empty else choose(op, complete, attrs, under).bind()

    return recall(op, (op, *specs, *attrs.values()), attrs, chosen)


def recall(op: Op, key: tuple[Any, ...], attrs: Attrs, find: Callable[[], T]) -> T:
    """What the memo of the settings in force holds for a call, or else `find()`, which is then kept there.

    Args:
        op, attrs: what is called, for the error.
        key: all that tells it from other calls.
        find: finds out, slowly.

    Raises:
        DTypeError: when an attribute in the key is not hashable.
    """
    memo = current().memo
    try:
        known: T | None = memo.get(key)
    except TypeError:
        raise DTypeError(
            f"{op.name}: attributes must be hashable, got {dict(attrs)}; use tuples for lists."
        ) from None
    if known is None:
        before = registry.generation(), tuning.generation()
        known = find()
        if len(memo) >= _MEMO_LIMIT:
            memo.clear()
        # Kernels or measurements that changed meanwhile have emptied the memo: do not fill in the old.
        if before == (registry.generation(), tuning.generation()):
            memo[key] = known
    return known


def explain(op: Op, specs: Sequence[TensorSpec], attrs: Attrs | None = None) -> Explanation:
    """What would run a call under the settings in force, beside every other candidate with its reasons."""
    under = replace_strict(current())
    choice = choose(op, specs, attrs, under)
    return Explanation(choice, under, registry.missing(op.name, device_of(choice.specs)))


def replace_strict(under: Settings) -> Settings:
    """The same settings without `strict`: an explanation shows a fallback rather than refusing it."""
    return Settings(under.threads, under.backend, False, under.extra_error)


def fallbacks() -> dict[str, int]:
    """How often calls in this process fell back: `{"matmul: kernel -> reference": 3}`."""
    with _FALLBACKS_LOCK:
        return dict(_fallbacks)


def count_fallback(label: str) -> None:
    """Count one more fallback, for `fallbacks`."""
    with _FALLBACKS_LOCK:
        _fallbacks[label] += 1


def _counting(launch: Launch, label: str) -> Launch:
    def counted(*arrays: Any) -> None:
        count_fallback(label)
        launch(*arrays)

    return counted


def _reference_launch(op: Op, attrs: Attrs) -> Launch:
    """The op's reference as a launch: computes in float64, and rounds into the outputs once."""
    import numpy as np

    from . import accuracy

    count = len(op.inputs)

    def launch(*arrays: Any) -> None:
        wide = accuracy.widened(arrays[:count])
        with np.errstate(over="ignore", invalid="ignore"):
            for out, result in zip(arrays[count:], op.reference(*wide, **attrs), strict=True):
                np.copyto(out, result, casting="unsafe")

    return launch
