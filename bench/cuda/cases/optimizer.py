"""Updates of parameters: of one large one, and of a thousand in one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ....kernels.cuda.launch import CudaLaunch
from ....kernels.op import Specs, get_op
from ....kernels.optimizer.programs import program_of
from ....kernels.spec import ABSENT, TensorSpec
from ...problems.problem import Operand, Problem
from .job import Race

COUNT = 1 << 26
THOUSAND = 1000
STEP, LR = 10, 1e-3
"""Of which step the update is, and its learning rate."""
_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = [adam(f"adam-{THOUSAND}", "float32"), adam("adam-64m", "float32")]
    if not small:
        found.append(adam("adam-64m-bfloat16", "bfloat16"))
    yield from ((problem, None) for problem in found)


def adam(name: str, dtype: str, count: int = COUNT) -> Problem:
    """One step of Adam; `adam-1000`: the same numbers as a thousand parameters of ragged sizes."""
    x, one = Operand((count,), dtype), Operand(())
    inputs = (x, x, x, x, None, one, one, None)
    return Problem(f"optimizer-{name}", "adam", inputs, "optimizer", "synthetic", attrs=_ADAM)


def parts(count: int) -> list[slice]:
    """A thousand parameters of ragged sizes, from a few numbers to the most of a layer's, that fill an array.

    They start at multiples of 8 elements, as those of an allocator start at multiples of 16 bytes.
    """
    weights = [1 + (7919 * i % 1000) ** 2 for i in range(THOUSAND)]
    ends = [count * total // sum(weights) // 8 * 8 for total in accumulate(weights)]
    return [slice(a, b) for a, b in pairwise((0, *ends[:-1], count))]


def _thousand(specs: Specs) -> Callable[..., None]:
    """The update of a thousand parameters, which lie in one array each, as one launch."""
    launch, slices = launch_of_parts(specs), parts(specs[0].size)

    def call(*tensors: Any) -> None:
        launch(*views_of(tensors, slices))

    call.codes, call.sources = launch.codes, launch.sources  # type: ignore[attr-defined]
    return call


def launch_of_parts(specs: Specs) -> CudaLaunch:
    """One launch over all parameters, for the specs of the call over the whole arrays."""
    from ....kernels.pointwise.cuda.many import many

    attrs = get_op("adam").complete(_ADAM)
    program = program_of("adam", specs, attrs)
    groups = []
    for one in parts(specs[0].size):
        own = TensorSpec((one.stop - one.start,), specs[0].dtype, specs[0].device)
        groups.append(tuple(own if s.shape else s for s in specs if s is not ABSENT and s.present))
    return many(program, groups, (4, 5))


def views_of(tensors: Sequence[Any], slices: Sequence[slice]) -> list[Any]:
    """The tensors of such a launch: the two numbers, then each parameter's own."""
    given = [tensor for tensor in tensors if tensor is not None]
    shared = [tensor for tensor in given if not tensor.dim()]
    own = [tensor for tensor in given if tensor.dim()]
    return [*shared, *(tensor[one] for one in slices for tensor in own)]


LAUNCHES: dict[str, Callable[[Specs], Callable[..., None]]] = {f"optimizer-adam-{THOUSAND}": _thousand}
"""problem -> what launches ours, where that is no call of a kernel of the op."""


def _drawn(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> list[Any]:
    """A state of squares that is positive, and the numbers of step `STEP`."""
    import torch

    made: list[Any] = [None if o is None else draw(o, place) for place, o in enumerate(problem.inputs)]
    made[3] = made[3].float().square().add(0.01).to(made[3].dtype)
    size, root = LR / (1 - _ADAM["beta1"] ** STEP), (1 - _ADAM["beta2"] ** STEP) ** -0.5
    for place, number in ((5, size), (6, root)):
        made[place] = torch.full((), number, dtype=torch.float32, device=made[0].device)
    return made


DRAWN: dict[str, Callable[..., list[Any]]] = {"adam": _drawn}
