"""Calls of compiled functions on a GPU: what was given, the plan for it, and Arrays of its results.

All arguments of a call are on one device; numbers without axes may be on the CPU, as in eager calls. A call
whose Arrays have the specs of the last one, as results of plans have that come back as arguments, asks for
nothing but their addresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...kernels import settings
from ...kernels.errors import DeviceError, DonatedError, DTypeError, NonFiniteError
from ...kernels.settings import current
from ...kernels.spec import TensorSpec, extent
from .. import tree
from ..array import Array
from ..cuda import CudaArray, _torch, adopted, is_on_cuda, reach, to_numpy
from .plan import CudaPlan
from .scalars import on_device

_MOST_CHECKED = 16


class DonatedCudaArray(CudaArray):
    """An Array on a GPU whose memory was given to a compiled function: nothing is left to read."""

    __slots__ = ()

    def _gone(self) -> Any:
        raise DonatedError(
            "this Array was donated to a compiled function, which has put its results into the same memory; "
            "use the Array that the function returned, or compile it without donate."
        )

    _tensor = property(_gone)
    _spec = property(_gone)

    def __repr__(self) -> str:
        return "Array(donated)"


def on_gpu(leaves: Sequence[Any]) -> bool:
    """Whether one of the leaves is on a GPU."""
    return any(type(leaf) is CudaArray or (type(leaf) is not Array and is_on_cuda(leaf)) for leaf in leaves)


def gathered(leaves: Sequence[Any], name: str, paths: Callable[[], Sequence[str]]) -> list[CudaArray]:
    """The leaves as Arrays of one device.

    Args:
        leaves: of the arguments, one of them on a GPU.
        name: of the function, for errors.
        paths: what each leaf is called.

    Raises:
        DeviceError: for leaves on several devices, with what to write.
        DTypeError: for a torch tensor that needs a gradient.
    """
    there = [_adopted(leaf, name) if is_on_cuda(leaf) else None for leaf in leaves]
    first = next(i for i, array in enumerate(there) if array is not None)
    device = there[first].device  # type: ignore[union-attr]
    for number, (leaf, array) in enumerate(zip(leaves, there, strict=True)):
        if array is not None and array.device == device:
            continue
        if array is None and not isinstance(leaf, Array | np.ndarray):
            raise DTypeError(f"{name}: {paths()[number]} is a {type(leaf).__name__}, which is no Array.")
        if array is None and leaf.ndim == 0:
            there[number] = on_device(leaf._data if isinstance(leaf, Array) else np.asarray(leaf), device)
            continue
        called, other = paths()[number], paths()[first]
        place = "the CPU" if array is None else repr(array.device)
        raise DeviceError(
            f"{name}: {called} is on {place} and {other} on {device!r}; all arguments of a call are on one "
            f"device. Write kw.array({called}, device={device!r}), or for a whole model or state "
            f"kw.to_device(tree, {device!r})."
        )
    return there  # type: ignore[return-value]


def _adopted(leaf: Any, name: str) -> CudaArray:
    if getattr(leaf, "requires_grad", False) and _torch().is_grad_enabled():
        raise DTypeError(
            f"{name}: a torch tensor among the arguments needs a gradient, which torch could not follow "
            "through here; write x.detach(), or call under torch.no_grad()."
        )
    return adopted(leaf)


class CudaEntry:
    """A plan on a GPU, and how its results become what the function returned; the sibling of
    `compile._Entry`.
    """

    __slots__ = (
        "checked", "donated", "epoch", "others", "plain", "plan", "result_specs", "single", "specs",
        "structure", "taken", "under", "under_settings",
    )  # fmt: skip

    def __init__(self, plan: CudaPlan, structure: Any, donated: Sequence[int] = (), taken: Any = None):
        self.plan = plan
        self.structure = structure
        self.single = structure is tree.LEAF
        self.donated = tuple(donated)
        kept = [(i, spec) for i, spec in enumerate(plan.specs) if i not in self.donated]
        self.others = [(i, extent(spec.shape, spec.strides, spec.itemsize)) for i, spec in kept]
        self.taken = taken
        self.plain = taken is not None and taken.flat
        self.specs = list(plan.specs)
        self.result_specs = [place.spec for place in plan.low.outputs]
        # `Compiled` asks for the settings of an entry first: those of no call send it to `quick`.
        self.under, self.under_settings, self.epoch = None, current(), settings.epoch
        self.checked: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}

    def quick(self, args: Any) -> Any:
        """The results of a call like the last one; NotImplemented for another."""
        if current() is not self.under_settings or settings.epoch != self.epoch:
            return NotImplemented
        leaves: Any = args
        if not self.plain:
            leaves = []
            if self.taken is None or not self.taken.take(args, leaves):
                return NotImplemented
        try:
            found = [x._spec for x in leaves]
        except DonatedError:
            return NotImplemented
        except AttributeError:  # torch tensors, or Arrays that nobody has asked for their spec yet
            leaves = self._arrays(leaves)
            found = [x.spec for x in leaves]
        if found != self.specs:
            return NotImplemented
        tensors = [x._tensor for x in leaves]
        addresses = [tensor.data_ptr() for tensor in tensors]
        self._check_donated(tensors, addresses)
        return self.finished(leaves, tensors, addresses, None)

    def _arrays(self, leaves: Sequence[Any]) -> list[CudaArray]:
        """The leaves as Arrays; none, where one is not on a GPU or is donated and no Array."""
        kinds = list(map(type, leaves))
        if any(kinds[number] is not CudaArray for number in self.donated if number < len(kinds)):
            return []
        if not all(kind is CudaArray or (hasattr(kind, "is_cuda") and is_on_cuda(leaf))
                   for kind, leaf in zip(kinds, leaves, strict=True)):  # fmt: skip
            return []
        return [leaf if kind is CudaArray else _adopted(leaf, self.plan.graph.name)
                for kind, leaf in zip(kinds, leaves, strict=True)]  # fmt: skip

    def finished(
        self, leaves: Sequence[Any], tensors: Sequence[Any], addresses: Sequence[int], watched: Any
    ) -> Any:
        """Run the plan, and give what the function returns.

        Args:
            leaves: the arguments; the donated ones of them are gone afterwards.
            tensors, addresses: theirs.
            watched: None, or what runs the plan instead, for debugging.
        """
        for number in self.donated:
            leaves[number].__class__ = DonatedCudaArray
        try:
            if watched is None:
                made = self.plan.run(tensors, addresses)
            else:
                made = watched(self.plan, tensors, self.donated)
        except BaseException:
            for number in self.donated:
                leaves[number].__class__ = CudaArray
            raise
        arrays = list(map(CudaArray.of, made, self.result_specs))
        return arrays[0] if self.single else self.structure.unflatten(arrays)

    def _check_donated(self, tensors: Sequence[Any], addresses: Sequence[int]) -> None:
        """Refuse donated memory that another argument would still see.

        That of donated arguments among each other was looked at when they first came at these addresses.
        """
        if not self.donated:
            return
        at = tuple([addresses[number] for number in self.donated])
        known = self.checked.get(at)
        if known is None:
            known = self._bounds(tensors)
            if len(self.checked) >= _MOST_CHECKED:
                self.checked.clear()
            self.checked[at] = known
        starts, ends = known
        for number, (before, after) in self.others:
            if before != after:
                low, high = addresses[number] + before, addresses[number] + after
                place = bisect_right(starts, low) - 1
                if (place >= 0 and ends[place] > low) or (
                    place + 1 < len(starts) and starts[place + 1] < high
                ):
                    self._refuse(number)

    def _bounds(self, tensors: Sequence[Any]) -> tuple[list[int], list[int]]:
        full = [number for number in self.donated if tensors[number].numel()]
        bounds = sorted((*reach(tensors[number]), number) for number in full)
        for (_, end, _), (start, _, number) in pairwise(bounds):
            if start < end:
                self._refuse(number)
        return [low for low, _, _ in bounds], [high for _, high, _ in bounds]

    def _refuse(self, number: int) -> None:
        raise DonatedError(
            f"{self.plan.graph.name}: leaf {number} of the arguments shares memory with another one, and one "
            "of the two is donated: results would overwrite what is still read. Give a copy: x.copy()."
        )

    def call(self, leaves: Sequence[Any], arrays: Sequence[CudaArray], watching: bool) -> Any:
        """A call whose arguments were looked at closely."""
        for number in self.donated:
            if type(leaves[number]) is not CudaArray:
                kind = type(leaves[number]).__name__
                raise DonatedError(
                    f"{self.plan.graph.name}: leaf {number} of the arguments is donated and no Array on a "
                    f"GPU but a {kind}, which you could go on using; write kw.array(x, device='cuda')."
                )
        tensors = [array._tensor for array in arrays]
        addresses = [tensor.data_ptr() for tensor in tensors]
        self._check_donated(tensors, addresses)
        return self.finished(leaves, tensors, addresses, watched if watching else None)


def watched(plan: CudaPlan, tensors: Sequence[Any], donated: Sequence[int]) -> list[Any]:
    """`plan.run`, looking at the numbers of each call's outputs.

    Raises:
        NonFiniteError: for the first that are not finite; donated arguments keep the numbers that they had.
    """
    before = {number: tensors[number].clone() for number in donated}

    def look(number: int, outputs: list[Any]) -> None:
        call = plan.calls[number]
        for out in outputs:
            if not out.is_floating_point() or not out.numel():
                continue
            numbers = to_numpy(out)
            fine = np.isfinite(numbers.astype(np.float64) if numbers.dtype.kind == "V" else numbers)
            if not fine.all():
                at = tuple(int(i) for i in np.argwhere(~fine)[0])
                spec = TensorSpec.of(numbers, plan.device)
                raise NonFiniteError(
                    f"{call.node.op.name} ({call.node.where or plan.graph.name}) gave {numbers[at]} at "
                    f"{list(at)} of {spec}; its inputs: {', '.join(map(str, call.node.input_specs))}."
                )

    try:
        return plan.run_each(tensors, look)
    except BaseException:
        for number, kept in before.items():
            tensors[number].copy_(kept)
        raise
