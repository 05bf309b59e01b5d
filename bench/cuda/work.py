"""What one job does, on the device: called in a worker process, whose context a failing kernel may spoil."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from statistics import geometric_mean
from typing import Any

import numpy as np

from ...engine.cuda import CudaArray, run, to_device
from ...kernels import dispatch, registry, tuning
from ...kernels.cache import TuningCache
from ...kernels.cuda.check import check, cuda_specs, untakeable
from ...kernels.cuda.clock import Calls, Clock, sets_for
from ...kernels.cuda.device import facts
from ...kernels.cuda.launch import runtime, torch_dtype
from ...kernels.cuda.trial import is_lost
from ...kernels.dispatch import Choice
from ...kernels.kernel import Config, Kernel
from ...kernels.op import Sample, get_op
from ...kernels.settings import using
from ..honest.streams import TorchDevice, complaint
from ..problems.problem import Operand, Problem
from ..timing.gpu_device import Device
from ..whole.networks import get_network
from . import endurance, steps
from .cases.job import Job, weight_place
from .cases.jobs import file_of
from .contest import contest_on, host_seconds
from .judging import Judge, as_tuple
from .vendors.ways import name_of, settings, vendor

Result = dict[str, Any]
SEARCH_SECONDS = 6.0  # of one search, for what was compiled ahead


class Place:
    """Where the work is done.

    Args:
        clock: takes the times.
        device: where torch makes tensors: "cuda", or "cpu" in tests, where the interpreter runs the kernels.
        seed: of all random numbers of the run.
        until: when proofs end where they are, by `time.time`.
        cache: where the times of searches are kept; the user's own unless given.
        queue: of the device, for the loop that times behind a block; None for plain events.
    """

    def __init__(
        self,
        clock: Clock,
        device: str = "cuda",
        seed: int = 0,
        until: float = inf,
        cache: TuningCache | None = None,
        queue: Device | None = None,
    ) -> None:
        self.clock, self.device, self.seed = clock, device, seed
        self.until, self.cache, self.queue = until, cache, queue

    def draw(self, operand: Operand | None, salt: int) -> Any:
        """Fresh standard normal numbers as an operand lies in memory; factors, of one axis, near 1."""
        import torch

        if operand is None:
            return None
        generator = torch.Generator(self.device).manual_seed(self.seed + salt)
        dtype = torch_dtype(operand.dtype)
        wide = torch.float32 if operand.dtype.startswith("float8") else dtype
        made = torch.randn(operand.stored_shape, generator=generator, device=self.device, dtype=wide)
        if operand.dtype == "float32" and len(operand.shape) == 1:
            made = made.abs().add_(0.5)
        made = made.to(dtype)
        return made.transpose(-1, -2) if operand.transposed else made

    def inputs(self, problem: Problem, salt: int = 0) -> list[Any]:
        """Fresh operands of a problem, a convolution's weight channels last beside such images.

        Drawn as the family's file says (`DRAWN`), else as the op says, else normal numbers.
        """
        own = getattr(file_of(problem.operation.family), "DRAWN", {}).get(problem.op)
        if own is not None:
            return list(own(problem, lambda operand, place: self.draw(operand, 1000 * salt + place)))
        if problem.operation.draw is not None:
            return self._contents(problem, salt)
        drawn = [self.draw(o, 1000 * salt + place) for place, o in enumerate(problem.inputs)]
        place = weight_place(problem)
        if place is not None:
            drawn[place] = drawn[place].movedim(1, -1).contiguous().movedim(-1, 1)
        return drawn

    def _contents(self, problem: Problem, salt: int) -> list[Any]:
        """What the op's own `draw` gives, copied to the device in the operands' layouts."""
        rng = np.random.default_rng((self.seed, salt))
        arrays = problem.operation.contents(rng, problem.specs, problem.attrs)
        made: list[Any] = []
        for operand, array in zip(problem.inputs, arrays, strict=True):
            if operand is None or array is None:
                made.append(None)
            elif operand.transposed:
                made.append(to_device(array.swapaxes(-1, -2), "cuda")._tensor.transpose(-1, -2))
            else:
                made.append(to_device(array, "cuda")._tensor)
        return made

    def sets(self, problem: Problem, first: list[Any]) -> list[list[Any]]:
        """`first`, and as many more operands as keep the cache from holding them."""
        more = range(1, sets_for(problem.footprint, facts().l2_bytes))
        return [first, *(self.inputs(problem, salt) for salt in more)]


def work(job: Job, place: Place) -> Result:
    """Do a job; what it raises is the caller's to note."""
    return _KINDS[job.kind](job, place)


def code_of(choice: Choice, launch: Any = None) -> list[Result]:
    """Of each kernel that a choice launches: its name, digests of source and machine code, and its needs."""
    launch = choice.bind() if launch is None else launch
    codes = getattr(launch, "codes", None)
    if codes is None:
        return []
    sources = launch.sources()
    found = codes(facts(dispatch.device_of(choice.specs)).capability)
    return [
        {
            "kernel": code.kernel,
            "source": source,
            "code": code.digest,
            "registers": code.registers,
            "shared": code.shared,
        }
        for code, source in zip(found, sources, strict=True)
    ]


def chosen(problem: Problem, tensors: Sequence[Any], tuned: bool = True) -> Choice:
    """What `choose` picks for a problem on the device, under the settings in force."""
    from ...engine.cuda import spec_of
    from ...kernels.spec import ABSENT

    specs = [ABSENT if t is None else spec_of(t) for t in tensors]
    choice = dispatch.choose(problem.operation, specs, problem.attrs, tuned=tuned)
    if choice.kernel is None:
        choice.bind()  # raises, with every reason
    return choice


def launch_of(problem: Problem, choice: Choice) -> Any:
    """What a race launches: the choice's kernel, or what the family's file has (`LAUNCHES`)."""
    own = _own_launches(problem)
    return choice.bind() if own is None else own(choice.specs)


def _own_launches(problem: Problem) -> Any:
    return getattr(file_of(problem.operation.family), "LAUNCHES", {}).get(problem.name)


def _launches(problem: Problem, choice: Choice, sets: Sequence[Sequence[Any]]) -> list[Callable[[], Any]]:
    """The choice bound to each set of operands, with an output of its own each."""
    launch = launch_of(problem, choice)
    made: list[Callable[[], Any]] = []
    count = len(problem.inputs)
    for tensors in sets:
        outputs = [
            runtime().empty(spec.shape, torch_dtype(spec.dtype), spec.device) for spec in choice.specs[count:]
        ]

        made.append(_bound(launch, (*tensors, *outputs), outputs[0]))
    return made


def _outputs(problem: Problem, choice: Choice, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """What ours gives, in memory of its own: by the face where a kernel of the op runs."""
    if _own_launches(problem) is None:
        return tuple(one._tensor for one in run(problem.operation, tensors, problem.attrs))
    launch = launch_of(problem, choice)
    made = [
        runtime().empty(spec.shape, torch_dtype(spec.dtype), spec.device)
        for spec in choice.specs[len(problem.inputs) :]
    ]
    launch(*tensors, *made)
    return tuple(made)


def _bound(launch: Callable[..., Any], arguments: tuple[Any, ...], output: Any) -> Callable[[], Any]:
    def call() -> Any:
        launch(*arguments)
        return output

    return call


def _left_behind(call: Callable[[], Any]) -> str | None:
    """Work that a call leaves on streams that nobody waits for; said when it is seen twice."""
    device = TorchDevice()
    return complaint(device, call) and complaint(device, call)


def _race(job: Job, place: Place) -> Result:
    problem = job.problem
    assert problem is not None
    with using(extra_error=job.extra_error), settings(tf32=job.extra_error is True):
        tensors = place.inputs(problem)
        choice = chosen(problem, tensors)
        kernel = choice.kernel
        assert kernel is not None
        outputs = _outputs(problem, choice, tensors)
        theirs = vendor(problem, tensors)
        try:
            results = [outputs, as_tuple(theirs())]
        except RuntimeError as error:
            if is_lost(error):
                raise
            results, absent = [outputs], str(error).splitlines()[0]
        judge = Judge(problem, tensors, place.seed)
        judged, *vendors = (judge.judge(result, kernel.error) for result in results)
        found: Result = {
            "kernel": kernel.id,
            "config": choice.config,
            "why": choice.why,
            "tuned": any(c.kernel is kernel and c.tuned_s is not None for c in choice.candidates),
            "judged": judged.to_json(),
            "codes": code_of(choice, launch_of(problem, choice)),
            "status": "right" if judged.ok else "wrong",
        }
        if not vendors:
            found["notes"] = [f"torch does not compute this: {absent}"]
        if not judged.ok or not vendors:
            return found
        found["vendor"] = vendors[0].to_json()
        del outputs, results, judge
        sets = place.sets(problem, tensors)
        ours = _launches(problem, choice, sets)
        if place.queue is not None and (left := _left_behind(ours[0])) is not None:
            return found | {"status": "wrong", "notes": [left]}
        theirs_all = [vendor(problem, s) for s in sets]
        times = contest_on(place.queue, {"ours": ours, "theirs": theirs_all}, place.clock)
    return found | {
        "ours_s": times.seconds("ours"),
        "theirs_s": times.seconds("theirs"),
        "ratio": times.ratio("theirs", "ours"),
        "rounds": times.sides,
        "calls": times.calls,
        "sets": times.sets,
        "notes": times.notes,
        "how": times.how,
        "baseline": name_of(problem),
        "flops": problem.cost.flops,
        "bytes": problem.cost.bytes,
    }


def _proof(job: Job, place: Place) -> Result:
    """Every kernel of an op over the op's samples, its configurations taking turns."""
    op = get_op(job.op)
    if job.dtype not in op.dtypes:
        return {"status": "right", "checked": 0, "note": f"{job.op} takes no {job.dtype}"}
    checked, refused, wrong = 0, 0, []
    cut = False
    for turn, sample in enumerate(op.samples(np.random.default_rng(place.seed), job.dtype)):
        if time.time() > place.until:
            cut = True
            break
        for kernel in registry.kernels_for(job.op, "cuda"):
            config = config_for(kernel, sample, turn)
            if config is None:
                refused += 1
                continue
            checked += 1
            try:
                verdict = check(kernel, sample, config, device=place.device)
                text = "" if verdict.ok else verdict.text
            except Exception as error:
                text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                if is_lost(error):
                    raise  # nothing after this would mean anything
            if text:
                wrong.append(f"{kernel.id} {config} on {sample!r}: {text}")
    status = "wrong" if wrong else "right"
    return {"status": status, "checked": checked, "refused": refused, "wrong": wrong[:20], "cut": cut}


def config_for(kernel: Kernel, sample: Sample, turn: int) -> Config | None:
    """The configuration that is tried on a sample; None where there is nothing to try."""
    if untakeable(sample) is not None:
        return None
    specs = cuda_specs(kernel, sample)
    attrs = get_op(kernel.op).complete(sample.attrs)
    if not any(spec.size for spec in specs[len(sample.inputs) :]) or kernel.why_not(specs, attrs) is not None:
        return None
    known = kernel.configurations(specs, attrs, 1)
    return known[turn % len(known)]


# Rows and columns of a matrix, and images, pixels of their sides and channels, of more than 2^31 elements
# (4.3 GB of bfloat16).
_WIDE = (2**16 + 48, 2**15 + 64)
_WIDE_IMAGES = (129, 512, 64)


def _wide(job: Job, place: Place) -> Result:
    """Calls with an operand, and with a result, of more than 2^31 elements: parts of them against float64."""
    done = dict((*_wide_products(place), *_wide_convs(place)))
    wrong = [f"{name}: {largest:.2g}" for name, largest in done.items() if not largest <= 2**-6]
    return {"status": "wrong" if wrong else "right", "checked": len(done), "wrong": wrong, "done": done}


def _wide_products(place: Place) -> Iterator[tuple[str, float]]:
    """Of products, the largest error of some rows."""
    rows, columns = _WIDE if place.device != "cpu" else (200, 136)
    at = sorted({0, rows // 2, rows - 1, *range(rows - 40, rows, 13)})
    for name, (m, k, n) in (("operand", (rows, columns, 64)), ("result", (rows, 64, columns))):
        a = place.draw(Operand((m, k), "bfloat16"), 1)
        b = place.draw(Operand((k, n), "bfloat16"), 2)
        (c,) = run(get_op("matmul"), [a, b], {})
        some = a[at].double()
        yield f"{name} {m}x{k}x{n}", _largest(c._tensor[at], some @ b.double(), some.abs() @ b.double().abs())
        del a, b, c


def _wide_convs(place: Place) -> Iterator[tuple[str, float]]:
    """Of 3 x 3 filters and of their gradient for images, the largest error in the first and last image."""
    from torch.nn import functional

    n, size, channels = _WIDE_IMAGES if place.device != "cpu" else (3, 12, 16)
    x = place.draw(Operand((n, size, size, channels), "bfloat16"), 3)
    w = place.draw(Operand((channels, channels, 3, 3), "bfloat16"), 4)
    attrs: dict[str, Any] = {"padding": ((1, 1), (1, 1)), "layout": "NHWC"}
    ways: dict[str, tuple[list[Any], dict[str, Any], Callable[..., Any]]] = {
        "conv": ([x, w, None, None], attrs, functional.conv2d),
        "conv_input_grad": ([x, w, None], attrs | {"input_size": (size, size)}, functional.conv_transpose2d),
    }
    for name, (inputs, given, exactly) in ways.items():
        (y,) = run(get_op(name), inputs, given)
        off = 0.0
        for image in (0, n - 1):
            one, filters = x[image : image + 1].movedim(-1, 1).double(), w.double()
            exact, scale = (exactly(i, f, padding=1) for i, f in ((one, filters), (one.abs(), filters.abs())))
            off = max(off, _largest(y._tensor[image : image + 1].movedim(-1, 1), exact, scale))
        yield f"{name} {n}x{size}x{size}x{channels}", off
        del y


def _largest(result: Any, exact: Any, scale: Any) -> float:
    """The largest error of an element against its sum of absolute terms; infinite where one is no number."""
    import torch

    if not bool(torch.isfinite(result).all()):
        return inf
    return float(((result.double() - exact).abs() / scale.clamp_min(1e-300)).max())


COPIED = 1 << 30  # bytes, far beyond the cache of any chip


def _copy(job: Job, place: Place) -> Result:
    """What a copy moves in a second, read and written: the roof of all that is bound by memory."""
    import torch

    size = COPIED if place.device != "cpu" else 1 << 16
    x = place.draw(Operand((size // 4,), "float32"), 1)
    y = torch.empty_like(x)

    def copy() -> Any:
        y.copy_(x)
        return y

    times = contest_on(place.queue, {"copy": [copy]}, place.clock)
    return {"status": "right", "bytes_s": 2 * size / times.seconds("copy"), "rounds": times.sides}


def _launch(job: Job, place: Place) -> Result:
    """What a call costs on the host: through a launch, through the eager call, and through torch."""
    import torch

    found: Result = {"status": "right"}
    a, b = (place.draw(Operand((64, 64), "bfloat16"), salt) for salt in (1, 2))
    problem = Problem("launch", "matmul", (Operand((64, 64), "bfloat16"),) * 2, "launch", "synthetic")
    choice = chosen(problem, [a, b])
    (bare,) = _launches(problem, choice, [[a, b]])
    x, y = CudaArray(a), CudaArray(b)
    matmul = get_op("matmul")
    out = torch.empty(64, 64, dtype=torch.bfloat16, device=place.device)
    ways: dict[str, Callable[[], Any]] = {
        "launch_s": bare,
        "call_s": lambda: run(matmul, (x, y), {}),
        "torch_s": lambda: torch.mm(a, b, out=out),
    }
    for name, call in ways.items():
        call()
        found[name] = host_seconds(call, place.clock)
    return found


def _search(job: Job, place: Place) -> Result:
    """Tune a problem, and race what an untuned call would have run against what was found."""
    problem = job.problem
    assert problem is not None
    with using(extra_error=job.extra_error), settings(tf32=job.extra_error is True):
        tensors = place.inputs(problem)
        untuned = chosen(problem, tensors, tuned=False)
        found = tuning.tune(
            problem.operation,
            untuned.specs,
            untuned.attrs,
            clock=place.clock,
            budget_s=SEARCH_SECONDS,
            force=True,
            cache=place.cache,
            seed=place.seed,
            inputs=tensors,
        )
        may_run = {candidate.kernel for candidate in untuned.candidates if candidate.reason_not is None}
        best = next((timing for timing in found.timings if timing.kernel in may_run), None)
        wrong = [f"{k.id} {c}: {why}" for k, c, why in found.rejected if why.startswith("wrong")]
        result: Result = {
            "status": "wrong" if wrong or best is None else "right",
            "wrong": wrong[:20],
            "failed": [f"{k.id} {c}: {why}" for k, c, why in found.rejected if not why.startswith("wrong")],
            "untried": len(found.untried),
            "times": [[t.kernel.id, t.config, t.seconds, t.samples] for t in found.timings],
            "entries": [entry.__dict__ for entry in found.entries],
        }
        if best is None:
            return result
        tuned = Choice(**{**untuned.__dict__, "kernel": best.kernel, "config": best.config})
        loss, seconds = _loss(problem, untuned, tuned, place, tensors)
        named = {"kernel": best.kernel.id, "config": best.config, "codes": code_of(tuned)}
    return result | {"tuned": named, "loss": loss, "seconds_each": seconds}


def _loss(
    problem: Problem, untuned: Choice, tuned: Choice, place: Place, tensors: list[Any]
) -> tuple[float, dict[str, float]]:
    """How many times as long an untuned call takes as a tuned one, timed in turns; 1 where it is the same."""
    sets = place.sets(problem, tensors)
    sides: dict[str, Calls] = {"tuned": _launches(problem, tuned, sets)}
    same = untuned.kernel is tuned.kernel and untuned.config == tuned.config
    if not same:
        sides["untuned"] = _launches(problem, untuned, sets)
    times = contest_on(place.queue, sides, place.clock)
    loss = 1.0 if same else times.ratio("untuned", "tuned")
    return loss, {name: times.seconds(name) for name in sides}


def _step(job: Job, place: Place) -> Result:
    """A whole training step against torch's."""
    return steps.raced(get_network(job.network), place.device, place.device != "cpu", place.seed)


_KINDS: dict[str, Callable[[Job, Place], Result]] = {
    "copy": _copy,
    "step": _step,
    "same bits": lambda job, place: endurance.same_bits(job.network, place.device, seed=place.seed),
    "leaks": lambda job, place: endurance.leaks(job.network, place.device),
    "digits": lambda job, place: endurance.digits(),
    "race": _race,
    "proof": _proof,
    "wide": _wide,
    "launch": _launch,
    "search": _search,
}


def summary(results: Sequence[tuple[Job, Result]]) -> list[tuple[str, int, float, float]]:
    """Of each group of races: its name, how many, the geometric mean of the ratios, and the worst."""
    groups: dict[str, list[float]] = {}
    for job, result in results:
        if job.kind == "race" and job.problem is not None and "ratio" in result:
            groups.setdefault(job.problem.group, []).append(result["ratio"])
    return [(name, len(rs), geometric_mean(rs), min(rs)) for name, rs in groups.items()]


def timed(job: Job, place: Place) -> Result:
    """`work` with its seconds, and what it raises as a failed result; a lost device is raised."""
    started = time.monotonic()
    try:
        result = work(job, place)
    except Exception as error:
        if is_lost(error):
            raise
        first = str(error).splitlines()[0] if str(error) else ""
        result = {"status": "failed", "message": f"{type(error).__name__}: {first}"}
    return result | {"seconds": time.monotonic() - started}
