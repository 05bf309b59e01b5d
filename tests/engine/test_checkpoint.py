"""Saving and loading trees: the bits come back, and what is damaged says so."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine import checkpoint, tree
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


def made() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    leaves = [kw.array(rng.integers(0, 2, (2, 3)), dtype=dtype) for dtype in DTYPES]
    return {"layers": leaves, "none": None, "number": kw.array(2.5), "empty": (kw.array(np.zeros((0, 4))),)}


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, made(), {"epoch": 3})
    back, info = checkpoint.read(path, like=made())
    assert info == {"epoch": 3}
    for one, two in zip(tree.leaves(made()), tree.leaves(back), strict=True):
        assert one.spec is two.spec
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
    assert set(checkpoint.load(path)) == {*(f"layers.{n}" for n in range(8)), "number", "empty.0"}


def test_the_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="waits for the safetensors package")
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, made())
    theirs = safetensors.load_file(path)
    ours = checkpoint.load(path)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor.double().numpy(), np.asarray(ours[name]).astype("f8"))
    safetensors.save_file(theirs, path)
    np.testing.assert_array_equal(
        np.asarray(checkpoint.load(path)["layers.1"]), np.asarray(made()["layers"][1])
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-3], "bytes of numbers where its header says"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "another checksum"),
        (lambda data: data[:40], "too few for its header"),
        (lambda data: b"", "too few for its header"),
        (lambda data: struct.pack("<Q", 8) + b"not json" + data, "damaged or no safetensors"),
        (lambda data: data.replace(b"F64", b"F99"), "damaged or no safetensors"),
    ],
)
def test_a_damaged_file_is_told_and_the_one_before_is_kept(tmp_path: Path, damage: Any, said: str) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, made(), {"epoch": 1}, keep=True)
    checkpoint.save(path, made(), {"epoch": 2}, keep=True)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=said) as raised:
        checkpoint.load(path)
    assert str(checkpoint.previous(path)) in str(raised.value)
    assert checkpoint.read(checkpoint.previous(path), made())[1] == {"epoch": 1}


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, made(), {"epoch": 1})

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, made(), {"epoch": 2}, keep=True)
    assert checkpoint.read(path, made())[1] == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"w": kw.array([1.0, 2.0])})
    with pytest.raises(ConfigError, match="lacks b, and has w besides"):
        checkpoint.load(path, like={"b": kw.array([1.0])})
    with pytest.raises(ShapeError, match=r"w has shape \(2,\).*\(3,\) is wanted"):
        checkpoint.load(path, like={"w": kw.array([1.0, 2.0, 3.0])})
    with pytest.raises(DTypeError, match=r"w is float64.*float32 is wanted"):
        checkpoint.load(path, like={"w": kw.array([1.0, 2.0], dtype="float32")})
    with pytest.raises(ConfigError, match="there is no file"):
        checkpoint.load(tmp_path / "y.safetensors")
