"""Recurrent weights packed ahead, in the panels that the kernels for whole sequences read.

    w_ih: [G H, I], w_hh: [G H, H]  ->  [panels, I or H, G, n]      n hidden units, all gates side by side
    w_hr: [P, H]                    ->  [panels, H, 1, n]           (`lstmp`) P as if it were hidden units

Units past the last are zeros. The format is `gates<G>x<n>`; how many units make a panel depends on the
machine that packs. It is what `pack.py` makes of a weight in each call, so results have the same bits.
bfloat16 weights keep their 16 bits, and are widened in the call where its kernel wants them so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..allocate import empty_aligned
from ..errors import ConfigError, DTypeError, ShapeError
from ..machine import vector_bytes
from ..op import AnyArray
from ..prepack import Packed
from ..spec import TensorSpec, dtype_name
from .tiles_shape import COLUMNS, UNITS

_FORMAT = re.compile(r"gates([134])x([1-9]\d*)")
_DTYPES = ("float32", "float64", "bfloat16")
_GATES = {"lstm": 4, "lstmp": 4, "gru": 3, "rnn": 1}
WEIGHTS = ("w_ih", "w_hh", "w_hr")


def gates_of(op: str, name: str) -> int:
    """How many gates lie one above the other in a weight of that name."""
    return 1 if name == "w_hr" else _GATES[op]


def format_for(op: str, name: str, dtype: str) -> str:
    """The format that the weight `name` of `op` gets on this machine."""
    lanes = vector_bytes() // (8 if dtype == "float64" else 4)
    vectors = COLUMNS if name == "w_hr" else UNITS.get(op, UNITS["rnn_tanh"])
    return f"gates{gates_of(op, name)}x{vectors * lanes}"


def parsed(op: str, name: str, form: str) -> tuple[int, int]:
    """(gates, units in a panel) of the format of a weight.

    Raises:
        ConfigError: for a format that this weight cannot have.
    """
    found = _FORMAT.fullmatch(form)
    if found is None or int(found[1]) != gates_of(op, name):
        raise ConfigError(
            f"{op}: {name}_format is {form!r}; pass what kernels.prepack.prepack({op!r}, {name}"
            f"{', name=' + repr(name) if op == 'lstmp' else ''}) made."
        )
    return int(found[1]), int(found[2])


def prepack(op: str, weight: AnyArray, *, name: str = "w_ih") -> Packed:
    """`weight`, packed for calls of `op`.

    Args:
        op: "lstm", "lstmp" (`kw.lstm` with w_hr), "gru" or "rnn".
        weight: float32, float64 or bfloat16; w_ih: [G H, I], w_hh: [G H, H] (`lstmp`: [G H, P]) with G = 4
            gates, 3 or 1, or w_hr: [P, H].
        name: which one it is; w_ih and w_hh are packed alike.

    Raises:
        ConfigError: for a name that is none of the op's weights.
        DTypeError: for another op, or a dtype that it does not take.
        ShapeError: for a weight that does not hold the op's gates.
    """
    if op not in _GATES:
        raise DTypeError(f"{op} takes no packed weights; pass the weight itself.")
    if name not in WEIGHTS[: 3 if op == "lstmp" else 2]:
        raise ConfigError(f"{op} has no weight {name!r}; name= is 'w_ih', 'w_hh' or, for lstmp, 'w_hr'.")
    dtype = dtype_name(weight.dtype)
    if dtype not in _DTYPES:
        raise DTypeError(f"{op} takes weights of {', '.join(_DTYPES)}, and this one is {dtype}.")
    gates = gates_of(op, name)
    if weight.ndim != 2 or weight.shape[0] % gates:
        rows = "[P, H]" if name == "w_hr" else f"[{gates} H, ...]" if gates > 1 else "[H, ...]"
        raise ShapeError(f"{op}: {name} has the shape {list(weight.shape)}, and must be {rows}.")
    form = format_for(op, name, dtype)
    n, (rows_all, k) = parsed(op, name, form)[1], weight.shape
    units = rows_all // gates
    data: AnyArray = empty_aligned((packed_size(op, name, form, weight.shape),), weight.dtype)
    panels, above = data.reshape(-(-units // n), k, gates, n), weight.reshape(gates, units, k)
    for place, panel in enumerate(panels):
        part = above[:, place * n : (place + 1) * n]
        panel[:, :, : part.shape[1]] = part.transpose(2, 0, 1)
        panel[:, :, part.shape[1] :] = 0
    return Packed(op, data, form, (rows_all, k))


def packed_size(op: str, name: str, form: str, shape: tuple[int, ...]) -> int:
    """How many elements a packed weight has.

    Raises:
        ConfigError: for a format that this weight cannot have.
        ShapeError: when `shape` is not that of such a weight.
    """
    gates, n = parsed(op, name, form)
    if len(shape) != 2 or shape[0] % gates:
        raise ShapeError(f"{op}: {name}_shape is {shape}; it is the shape of the weight that was packed.")
    return -(-(shape[0] // gates) // n) * n * gates * shape[1]


def unpack(op: str, name: str, data: AnyArray, form: str, shape: tuple[int, ...]) -> AnyArray:
    """The weight behind packed data."""
    gates, n = parsed(op, name, form)
    units, k = shape[0] // gates, shape[1]
    panels = -(-units // n)
    above = data.reshape(panels, k, gates, n).transpose(2, 0, 3, 1).reshape(gates, panels * n, k)
    return np.ascontiguousarray(above[:, :units]).reshape(shape)


def unpacked_specs(
    op: str, given: Mapping[str, TensorSpec], attrs: Mapping[str, Any]
) -> dict[str, TensorSpec]:
    """The specs of a call by name, those of packed weights as if they were not packed.

    Raises:
        ConfigError: for an unknown format.
        ShapeError: for packed data that are not 1-D, or not as many as the weight's shape makes them.
    """
    plain = dict(given)
    for name in WEIGHTS:
        form = attrs.get(f"{name}_format")
        if not form:
            continue
        shape, data = tuple(attrs[f"{name}_shape"]), given[name]
        size = packed_size(op, name, form, shape)
        if data.shape != (size,):
            raise ShapeError(
                f"{op}: {name} of shape {list(shape)} packed as {form} is 1-D with {size} elements, "
                f"not {data}."
            )
        plain[name] = TensorSpec(shape, data.dtype, data.device)
    return plain


def on_weights(op: str, inputs: tuple[str, ...], compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute`, which knows no packed weights, for calls that may have them."""

    def unpacking(*arrays: AnyArray | None, **attrs: Any) -> Any:
        given = list(arrays)
        for name in WEIGHTS:
            form, shape = attrs.pop(f"{name}_format", ""), attrs.pop(f"{name}_shape", ())
            if form:
                data = given[inputs.index(name)]
                assert data is not None
                given[inputs.index(name)] = unpack(op, name, data, form, shape)
        return compute(*given, **attrs)

    return unpacking
