"""Trees of Arrays in safetensors files: written as a whole or not at all, checked when read.

    kw.save("model.safetensors", model)
    model = kw.load("model.safetensors", like=model)

The format (huggingface.co/docs/safetensors): eight bytes with the length of a JSON header, little-endian;
the header, `{name: {"dtype", "shape", "data_offsets"}, "__metadata__": {text: text}}`; then the numbers,
row-major. Files of others are read as well as those written here, which have a CRC-32 of the numbers besides.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import ConfigError, DTypeError, ShapeError
from ..kernels.spec import dtype_name, np_dtype
from . import tree
from .array import Array, array

_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}


def _on_gpu(leaf: Any) -> bool:
    return isinstance(leaf, Array) and leaf.on_cuda


def save(
    path: str | os.PathLike[str], made: Any, info: Mapping[str, Any] | None = None, keep: bool = False
) -> None:
    """Write a tree of Arrays. A crash on the way leaves the file that was there before.

    Args:
        path: the file, usually `*.safetensors`.
        made: a Module, or any tree of Arrays; names are those of a state_dict, `layers.0.weight`.
        info: more to remember, which JSON can hold.
        keep: leave the file that was there as `<path>.previous`.
    """
    leaves, structure = tree.flatten(made)
    header: dict[str, Any] = {}
    parts, at, check = [], 0, 0
    for name, leaf in zip(structure.paths(dotted=True), leaves, strict=True):
        here = array(leaf, device="cpu") if _on_gpu(leaf) else leaf
        data = np.ascontiguousarray(np.asarray(here)).tobytes()
        places = [at, at + len(data)]
        header[name or "array"] = {
            "dtype": _CODES[dtype_name(leaf.dtype)],
            "shape": list(leaf.shape),
            "data_offsets": places,
        }
        parts.append(data)
        at, check = at + len(data), zlib.crc32(data, check)
    header["__metadata__"] = {
        "format": "kernelwright",
        "crc32": f"{check:08x}",
        "info": json.dumps(dict(info or {})),
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers start at a multiple of 8
    path = Path(path)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with fresh.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(previous(path))
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def previous(path: str | os.PathLike[str]) -> Path:
    """Where `save(..., keep=True)` leaves the file that was there."""
    return Path(f"{os.fspath(path)}.previous")


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """The tree that a file holds; errors as `read`.

    Args:
        path: a safetensors file.
        like: a tree of the same structure, shapes and dtypes; without it, a dict of Arrays by name.

    Raises:
        ConfigError, ShapeError, DTypeError: when the file is none, is damaged, or does not fit `like`.
    """
    return read(path, like)[0]


def read(path: str | os.PathLike[str], like: Any = None) -> tuple[Any, dict[str, Any]]:
    """As `load`, and the `info` that was saved with it.

    Raises:
        ConfigError: for a file that is none, or damaged, or has other names than `like`.
        ShapeError, DTypeError: for an Array unlike that of its name; nothing is converted.
    """
    path = Path(path)
    try:
        arrays, metadata = _parsed(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kept = previous(path)
        hint = f" The one saved before is {kept}." if kept.exists() else ""
        raise ConfigError(f"{path} is damaged or no safetensors file: {error}.{hint}") from error
    info = json.loads(metadata.get("info", "{}"))
    if like is None:
        return arrays, info
    leaves, structure = tree.flatten(like)
    names = [name or "array" for name in structure.paths(dotted=True)]
    check_names(names, arrays, str(path))
    for name, leaf in zip(names, leaves, strict=True):
        check_same(name, arrays[name], leaf, str(path))
    return structure.unflatten(arrays[name] for name in names), info


def _parsed(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """The Arrays of a file by name, and its metadata; a built-in error for what is no such file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"{len(data)} bytes are too few for its header")
    header = json.loads(data[8 : 8 + length].decode())
    metadata = header.pop("__metadata__", {})
    numbers = memoryview(data)[8 + length :]
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != len(numbers):
        raise ValueError(f"it has {len(numbers)} bytes of numbers where its header says {end}")
    if "crc32" in metadata and f"{zlib.crc32(numbers):08x}" != metadata["crc32"]:
        raise ValueError("its numbers have another checksum than when they were written")
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype, shape = np_dtype(_NAMES[entry["dtype"]]), tuple(entry["shape"])
        if not 0 <= start <= stop or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has bytes {start}..{stop}, which are not {shape} of {dtype}")
        arrays[name] = Array(np.frombuffer(numbers[start:stop], dtype).reshape(shape).copy())
    return arrays, metadata


def check_names(mine: Any, theirs: Any, where: str) -> None:
    """Refuse names that do not fit.

    Raises:
        ConfigError: for some that are missing or unknown.
    """
    missing, more = [n for n in mine if n not in theirs], [n for n in theirs if n not in set(mine)]
    if missing or more:
        raise ConfigError(f"{where} does not fit: it lacks {_some(missing)}, and has {_some(more)} besides.")


def check_same(name: str, new: Any, old: Any, where: str) -> None:
    """Refuse an array for the place of another.

    Raises:
        ShapeError, DTypeError: when it is of another shape or dtype.
    """
    if tuple(new.shape) != tuple(old.shape):
        raise ShapeError(f"{name} has shape {tuple(new.shape)} in {where}, but {tuple(old.shape)} is wanted.")
    if new.dtype != old.dtype:
        raise DTypeError(
            f"{name} is {new.dtype} in {where}, but {old.dtype} is wanted, and nothing is converted "
            f"silently; convert it yourself: kw.array(x, dtype={str(old.dtype)!r})."
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "nothing"
