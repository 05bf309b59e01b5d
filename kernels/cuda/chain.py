"""Several launches as one: products of other ops, CUDA C++ and Triton in turn, over the tensors of one call.

    parts = [Part(CodeLaunch(...), (0, scratch)), product("linear", specs, {}, (0, 3, 5, None, sums)), ...]
    return ChainLaunch(specs, lambda aligned: parts)

A part is a launch for specs of its own, and says which memory each of its tensors is: one of the call's
tensors or a `Workspace`. Only addresses pass from one to the other, so that a spec may describe a tensor's
memory in another shape. Everything runs in order on torch's current stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..dispatch import choose
from ..errors import NoKernelError
from ..op import Specs, get_op
from ..settings import Settings
from .code_launch import ALIGNMENT, CodeLaunch
from .launch import CudaLaunch, runtime
from .step import Workspace

if TYPE_CHECKING:
    from .aot import Code

Place = int | Workspace | None


@dataclass(frozen=True, eq=False)
class Part:
    """One of the launches.

    Attributes:
        launch: for specs of its own.
        places: which memory each of its tensors is: a tensor of the call, by its index; a workspace; none.
        op, attrs: the call that it computes, where it is one of an op: for reports and tests.
    """

    launch: CudaLaunch | CodeLaunch
    places: tuple[Place, ...]
    op: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)


def product(op: str, specs: Specs, attrs: Mapping[str, Any], places: Sequence[Place]) -> Part:
    """A call of another op as a part, by the kernel that would run it by itself, in full precision.

    Args:
        op: its name.
        specs: of its inputs, then its outputs, as they lie in the memory of `places`.
        attrs: its attributes.
        places: one for each of the specs.

    Raises:
        NoKernelError: when no kernel takes the call.
    """
    found = choose(get_op(op), specs, attrs, Settings(threads=1, extra_error=False))
    if found.kernel is None:
        raise NoKernelError(f"no CUDA kernel takes the product {op}({', '.join(map(str, specs))}).")
    launch = found.kernel.bind(found.specs, found.attrs, found.config, 1)
    assert isinstance(launch, CudaLaunch | CodeLaunch)
    return Part(launch, tuple(places), op, attrs)


def _pieces(part: Part) -> tuple[Workspace, ...]:
    """The workspaces of a part's own launch."""
    return part.launch.workspaces if isinstance(part.launch, CudaLaunch) else ()


def _are_aligned(tensors: Sequence[Any]) -> bool:
    return all(t is None or t.data_ptr() % ALIGNMENT == 0 for t in tensors)


class ChainLaunch:
    """A call of known specs, ready for its tensors: `launch(*inputs, *outputs)`, torch tensors on the device.

    Attributes:
        specs: of the tensors.
        make: makes the parts, given whether all tensors are at addresses that are multiples of 16 bytes.
    """

    def __init__(self, specs: Specs, make: Callable[[bool], Sequence[Part]]) -> None:
        self.specs = specs
        self.make = make
        self._made: dict[bool, tuple[Part, ...]] = {}
        self._index: int | None = None

    def parts(self, aligned: bool = True) -> tuple[Part, ...]:
        """What is launched, in order."""
        if aligned not in self._made:
            self._made[aligned] = tuple(self.make(aligned))
        return self._made[aligned]

    def __call__(self, *tensors: Any) -> None:
        run, index = runtime(), self._number()
        if run.current() == index:
            self._run(run, tensors)
        else:
            with run.on(index):
                self._run(run, tensors)

    def _number(self) -> int:
        """The number of the tensors' device."""
        if self._index is None:
            self._index = runtime().number(next(spec.device for spec in self.specs if spec.present))
        return self._index

    @property
    def workspaces(self) -> tuple[Workspace, ...]:
        """What `within` is given memory for: the chain's own pieces, then those of each part."""
        own = {id(p): p for part in self.parts() for p in part.places if isinstance(p, Workspace)}
        return (*own.values(), *[piece for part in self.parts() for piece in _pieces(part)])

    def within(self, tensors: Sequence[Any], held: Sequence[Any]) -> Any:
        """The call with given memory for each of its `workspaces`; the device is current. As
        `CudaLaunch.within`."""
        if not _are_aligned(tensors):
            self._run(runtime(), tensors)
            return None
        return [
            part.launch.within(given, more) if isinstance(part.launch, CudaLaunch) else part.launch(*given)
            for part, given, more in self._with(tensors, held)
        ]

    def prepare(self, tensors: Sequence[Any], held: Sequence[Any]) -> None:
        """All of `within` but the launches. The device is current."""
        if _are_aligned(tensors):
            for part, given, more in self._with(tensors, held):
                part.launch.prepare(given, more)

    def _with(
        self, tensors: Sequence[Any], held: Sequence[Any]
    ) -> Iterator[tuple[Part, list[Any], Sequence[Any]]]:
        """Each part with its tensors and the memory of its workspaces."""
        parts = self.parts()
        count = len(held) - sum(len(_pieces(part)) for part in parts)
        mine = dict(zip(map(id, self.workspaces), held[:count], strict=False))
        for part in parts:
            more = len(_pieces(part))
            given = [self._tensor(place, tensors, mine) for place in part.places]
            yield part, given, held[count : count + more]
            count += more

    def _run(self, run: Any, tensors: Sequence[Any]) -> None:
        parts = self.parts(_are_aligned(tensors))
        held: dict[int, Any] = {}
        for part in parts:
            for place in part.places:
                if isinstance(place, Workspace) and id(place) not in held:
                    held[id(place)] = run.workspace(place, self._number())
        for part in parts:
            part.launch(*[self._tensor(place, tensors, held) for place in part.places])

    @staticmethod
    def _tensor(place: Place, tensors: Sequence[Any], held: Mapping[int, Any]) -> Any:
        if place is None:
            return None
        return held[id(place)] if isinstance(place, Workspace) else tensors[place]

    @property
    def steps(self) -> tuple[Any, ...]:
        """The launches when all tensors are aligned, as `explain` tells them."""
        return tuple(step for part in self.parts() for step in part.launch.steps)

    def codes(self, capability: int) -> list[Code]:
        """What the machine code of each launch needs of a chip and has."""
        return [code for part in self.parts() for code in part.launch.codes(capability)]

    def sources(self) -> list[str]:
        """The digests of the sources of its kernels."""
        return [source for part in self.parts() for source in part.launch.sources()]
