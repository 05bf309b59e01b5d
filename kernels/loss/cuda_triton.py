"""Losses by labels on the GPU, in Triton.

    tiles        rows by classes: any layout, any number of them    cuda/entropy_kernels.py, label_kernels.py
    long_rows    large vocabularies: cross entropy of rows of classes side by side, several programs a row
                 where rows are few                                 cuda/long_kernels.py

A label that is no class is never used as an index: its row's loss and weight are NaN, as on the CPU. Sums are
float32 for 16-bit scores, and of fixed order. No share of a roof has been measured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..cpu.cycles import ceil_div
from ..cuda.device import facts
from ..cuda.launch import launcher
from ..cuda.step import Arg, Step, Workspace
from ..cuda.triton_numbers import floating
from ..kernel import Launch
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from .cuda import entropy_kernels, label_kernels, long_kernels
from .cuda.rows import Rows, power_of_two, rows_of, tile_arguments, tile_configs
from .op import DTYPES
from .shapes import sums_dtype

LONG = 4096
"""Classes from which a row is long: those of a whole row would not fit a program's registers."""
PROGRAMS = 8
"""Programs for each multiprocessor, which few rows are cut into parts for: two rounds of four at a time."""

# Which tensors of a call have classes, and which one number a row; the kernels' names for them.
_PLACES: dict[str, tuple[dict[str, int], dict[str, int], int]] = {
    "cross_entropy": ({"x": 0}, {"target": 1, "losses": 3, "totals": 4, "weights": 5}, 2),
    "cross_entropy_grad": ({"x": 1, "dx": 5}, {"dloss": 0, "target": 2, "total": 4}, 3),
    "nll_loss": ({"x": 0}, {"target": 1, "losses": 3, "weights": 4}, 2),
    "nll_loss_grad": ({"dx": 3}, {"dloss": 0, "target": 1}, 2),
    "multi_margin_loss": ({"x": 0}, {"target": 1, "losses": 3}, 2),
    "multi_margin_loss_grad": ({"x": 1, "dx": 4}, {"dloss": 0, "target": 2}, 3),
}


class Call:
    """A call of one of the ops: its rows, and what all of its kernels are told."""

    def __init__(self, op: str, specs: Specs):
        scores, others, weight = _PLACES[op]
        self.specs = specs
        self.places = {**scores, **others}
        self.weight_place, self.weight = weight, specs[weight]
        self.scores: TensorSpec = specs[next(iter(scores.values()))]
        found = rows_of(
            {name: specs[i] for name, i in scores.items()}, {name: specs[i] for name, i in others.items()}
        )
        self.problem = found if isinstance(found, str) else None
        self.rows: Rows = found  # type: ignore[assignment]
        self.dtype = sums_dtype(self.scores.dtype)

    def arguments(self) -> dict[str, Any]:
        """The tensors."""
        step = self.weight.strides[0] // self.weight.itemsize if self.weight.present else 0
        tensors = {name: Arg(place) for name, place in self.places.items()}
        return {**tensors, "weight": Arg(self.weight_place), "weight_step": step}

    def smoothing(self, attrs: Attrs) -> dict[str, Any]:
        """What `label_smoothing` comes to."""
        smoothing = attrs["label_smoothing"]
        return {
            "smoothing": floating(1.0 - smoothing, self.dtype),
            "share": floating(smoothing / max(self.rows.classes, 1), self.dtype),
            "SMOOTH": smoothing != 0.0,
        }


def _supports(op: str) -> Callable[[Specs, Attrs], str | None]:
    return lambda specs, attrs: Call(op, specs).problem


def _configs(op: str, whole: bool, most: int) -> Callable[..., list[dict[str, int]]]:
    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[dict[str, int]]:
        call = Call(op, specs)
        return tile_configs(call.rows, call.scores.itemsize, whole, most)

    return configs


def _tiled(op: str, whole: bool, most: int = 2048) -> Any:
    """Declares a kernel in tiles; see `tile_configs`."""
    return kernel(
        op,
        device="cuda",
        language="triton",
        name="tiles",
        dtypes=DTYPES,
        supports=_supports(op),
        configs=_configs(op, whole, most),
        binds=True,
    )


def _dense(call: Call) -> dict[str, Any]:
    rows = call.rows
    unit = rows.unit(call.scores.itemsize)
    return {"CLASSES_DENSE": rows.classes_dense, "ROWS_DENSE": rows.rows_dense, "UNIT": unit}


def _total_weight(call: Call, smooth: bool) -> tuple[list[Step], Workspace | None]:
    """The launch that adds up the weights of classes, where the gradient needs that; and where the sum is."""
    if not smooth or not call.weight.present:
        return [], None
    out = Workspace((1,), call.dtype)
    given = call.arguments()
    args = {"weight": given["weight"], "weight_step": given["weight_step"], "out": out}
    classes = {"classes": call.rows.classes, "BLOCK": 1024}
    return [Step(entropy_kernels.weight_sum, (1,), {**args, **classes}, any_int=True)], out


@_tiled("cross_entropy", whole=True)
def cross_entropy(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """One sweep over each row."""
    call = Call("cross_entropy", specs)
    tiles, programs = tile_arguments(call.rows, config)
    args = {**call.arguments(), **tiles, **call.smoothing(attrs), **_dense(call)}
    args |= {"ignore": attrs["ignore_index"], "BC": config["bc"]}
    args |= {"SINGLE": config["bc"] >= call.rows.classes}
    return launcher(
        specs, Step(entropy_kernels.entropy, (programs,), args, warps=config["warps"], any_int=True)
    )


@_tiled("cross_entropy_grad", whole=False)
def cross_entropy_grad(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """A tile a program."""
    call = Call("cross_entropy_grad", specs)
    tiles, programs = tile_arguments(call.rows, config)
    smoothing = call.smoothing(attrs)
    before, mass = _total_weight(call, smoothing["SMOOTH"])
    class_blocks = ceil_div(call.rows.classes, config["bc"])
    args = {**call.arguments(), **tiles, **smoothing, **_dense(call), "mass_of_all": mass}
    args |= {"ignore": attrs["ignore_index"], "BC": config["bc"], "class_blocks": class_blocks}
    grid = (programs * class_blocks,)
    return launcher(
        specs, *before, Step(entropy_kernels.entropy_grad, grid, args, warps=config["warps"], any_int=True)
    )


# --- large vocabularies -------------------------------------------------------------------------------------

# Vectors of 16 bytes of a thread in one step, and warps of a program; the default first. What a thread has of
# a row has to stay in registers, which the gradient needs twice as many of where rows start anywhere.
_LONG_CONFIGS = {
    "cross_entropy": ({"sets": 4, "warps": 8}, {"sets": 2, "warps": 8}, {"sets": 4, "warps": 4}),
    "cross_entropy_grad": ({"sets": 2, "warps": 8}, {"sets": 4, "warps": 4}, {"sets": 2, "warps": 4}),
}


def _long_supports(op: str) -> Callable[[Specs, Attrs], str | None]:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        call = Call(op, specs)
        if call.problem:
            return call.problem
        if not call.rows.classes_dense:
            return "is for classes that lie side by side"
        return None if call.rows.classes >= LONG else f"is for rows of {LONG} classes and more"

    return supports


def _long(op: str) -> Any:
    return kernel(
        op,
        device="cuda",
        language="triton",
        name="long_rows",
        dtypes=DTYPES,
        supports=_long_supports(op),
        configs=_LONG_CONFIGS[op],
        rank=1,
        binds=True,
    )


def _parts(call: Call, step: int, unit: int, least: int) -> tuple[int, int]:
    """(parts of a row, steps of each): enough programs for the device, of `least` steps at least."""
    steps = ceil_div(call.rows.classes + unit - 1, step)
    wanted = ceil_div(PROGRAMS * facts(call.scores.device).multiprocessors, call.rows.count)
    parts = max(1, min(wanted, steps // least))
    each = ceil_div(steps, parts)
    return ceil_div(steps, each), each


def _long_arguments(
    call: Call, attrs: Attrs, config: Mapping[str, Any], least: int
) -> tuple[dict[str, Any], int]:
    """(what both kernels are told, parts of a row)."""
    unit = 16 // call.scores.itemsize
    threads = 32 * config["warps"]
    parts, each = _parts(call, config["sets"] * threads * unit, unit, least)
    strides = {name: step for name, step in call.rows.arguments().items() if not name.endswith("_c")}
    args = {**call.arguments(), **strides, **call.smoothing(attrs), "classes": call.rows.classes}
    args |= {f"n{axis}": call.rows.lengths[axis] for axis in range(3)}
    args |= {"parts": parts, "steps_of_part": each, "ignore": attrs["ignore_index"], "AXES": call.rows.axes}
    args |= {
        "EVEN": call.rows.starts_at_multiples(unit),
        "SETS": config["sets"],
        "THREADS": threads,
        "UNIT": unit,
    }
    return args, parts


@_long("cross_entropy")
def long_cross_entropy(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """A part of a row a program."""
    call = Call("cross_entropy", specs)
    args, parts = _long_arguments(call, attrs, config, 2)
    count, places = call.rows.count, power_of_two(parts)
    args |= {"PARTS": places, "sums": None, "arrivals": None}
    if parts > 1:
        args |= {
            "sums": Workspace((count, 4, places), call.dtype),
            "arrivals": Workspace((count,), "int32", zero=True),
        }
    step = Step(long_kernels.long_entropy, (count * parts,), args, warps=config["warps"], any_int=True)
    return launcher(specs, step)


@_long("cross_entropy_grad")
def long_cross_entropy_grad(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """A part of a row a program."""
    call = Call("cross_entropy_grad", specs)
    args, parts = _long_arguments(call, attrs, config, 1)
    before, mass = _total_weight(call, args["SMOOTH"])
    args |= {"mass_of_all": mass, "ALIKE": call.rows.start_alike(args["UNIT"], "x", "dx")}
    step = Step(
        long_kernels.long_entropy_grad, (call.rows.count * parts,), args, warps=config["warps"], any_int=True
    )
    return launcher(specs, *before, step)


# --- the others ---------------------------------------------------------------------------------------------


@kernel(
    "nll_loss",
    device="cuda",
    language="triton",
    name="tiles",
    dtypes=DTYPES,
    supports=_supports("nll_loss"),
    configs=({"br": 128, "warps": 4},),
    binds=True,
)
def nll_loss(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """The label's score alone."""
    call = Call("nll_loss", specs)
    tiles, programs = tile_arguments(call.rows, config)
    args = {**call.arguments(), **tiles, "ignore": attrs["ignore_index"], "TYPE": _type(call)}
    return launcher(specs, Step(label_kernels.nll, (programs,), args, warps=config["warps"], any_int=True))


@_tiled("nll_loss_grad", whole=False)
def nll_loss_grad(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """Zeros, and the label's element."""
    call = Call("nll_loss_grad", specs)
    tiles, programs = tile_arguments(call.rows, config)
    class_blocks = ceil_div(call.rows.classes, config["bc"])
    args = {**call.arguments(), **tiles, **_dense(call), "ignore": attrs["ignore_index"]}
    args |= {"BC": config["bc"], "class_blocks": class_blocks, "TYPE": _type(call)}
    grid = (programs * class_blocks,)
    return launcher(specs, Step(label_kernels.nll_grad, grid, args, warps=config["warps"], any_int=True))


def _margin(op: str, fn: Any, specs: Specs, attrs: Attrs, config: Mapping[str, Any]) -> Launch:
    call = Call(op, specs)
    tiles, programs = tile_arguments(call.rows, config)
    kept = ("classes", "rows", "BR")
    strides = {name: step for name, step in tiles.items() if name in kept or name.endswith(("_0", "_c"))}
    args = {**call.arguments(), **strides, **_dense(call), "BC": config["bc"]}
    del args["ROWS_DENSE"]
    args["UNIT"] = args["UNIT"] if args["CLASSES_DENSE"] else 1
    args |= {"margin": floating(attrs["margin"], call.dtype), "SQUARED": attrs["p"] == 2, "TYPE": _type(call)}
    args |= {"over": floating(1.0 / max(call.rows.classes, 1), call.dtype)}
    return launcher(specs, Step(fn, (programs,), args, warps=config["warps"], any_int=True))


@_tiled("multi_margin_loss", whole=True, most=1024)
def multi_margin_loss(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """One sweep over each row."""
    return _margin("multi_margin_loss", label_kernels.margin_loss, specs, attrs, config)


@_tiled("multi_margin_loss_grad", whole=True, most=1024)
def multi_margin_loss_grad(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """One sweep over each row, and the label's element."""
    return _margin("multi_margin_loss_grad", label_kernels.margin_grad, specs, attrs, config)


def _type(call: Call) -> Any:
    import triton.language as tl

    return tl.float64 if call.dtype == "float64" else tl.float32
