"""A small op, and kernels for it in plain NumPy: to test the machinery without compiling anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernelwright.kernels import op as op_module
from kernelwright.kernels import registry
from kernelwright.kernels.errors import ShapeError
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Cost, Op, Sample, TensorSpec


def infer(specs: tuple[TensorSpec, ...], scale: float) -> tuple[TensorSpec, ...]:
    TOY.check_inputs(specs)
    x, y = specs
    if x.shape != y.shape:
        raise ShapeError(f"toy: x is {x} and y is {y}; give them one shape.")
    return (TensorSpec(x.shape, x.dtype, x.device),)


def samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    yield Sample(
        "7x5", (rng.standard_normal((7, 5)).astype(dtype), rng.standard_normal((7, 5)).astype(dtype))
    )


TOY = Op(
    name="toy",
    infer=infer,
    reference=lambda x, y, scale: (x + scale * y,),
    cost=lambda specs, scale: Cost(2 * specs[0].size, 3 * specs[0].nbytes),
    samples=samples,
    reduction_length=lambda specs, scale: 2,
    inputs=("x", "y"),
    attrs={"scale": 2.0},
    magnitude=lambda x, y, scale: (np.abs(x) + abs(scale) * np.abs(y),),
)
SPECS = (TensorSpec((7, 5), "float32"), TensorSpec((7, 5), "float32"))


@contextmanager
def toy_registered() -> Iterator[Op]:
    """The op `toy`, with no kernels, inside a `with` block; no trace of it afterwards."""
    op_module.register_op(TOY)
    try:
        yield TOY
    finally:
        for kernel in registry.registered():
            if kernel.op == "toy":
                registry.unregister(kernel)
        del op_module._OPS["toy"]


Body = Callable[..., None]


def add_kernel(name: str, body: Body | None = None, **declared: Any) -> Kernel:
    """Register a kernel of toy that runs `body(x, y, out, scale, config)`; without a body it is right."""

    def bind(specs: Any, attrs: Any, config: Any, threads: int) -> Body:
        def launch(x: Any, y: Any, out: Any) -> None:
            (body or right)(x, y, out, attrs["scale"], config)

        return launch

    registry.kernel("toy", name=name, binds=True, language=declared.pop("language", "python"), **declared)(
        bind
    )
    (made,) = [kernel for kernel in registry.kernels_for("toy") if kernel.name == name]
    return made


def right(x: Any, y: Any, out: Any, scale: float, config: dict[str, Any]) -> None:
    out[...] = x + x.dtype.type(scale) * y
