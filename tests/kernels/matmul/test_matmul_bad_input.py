"""What matmul refuses, the first time and after calls that went well; and that a refusal writes nothing.

Every bad call is made twice: with nothing known of such calls, and after good calls of the same shapes, when
what was chosen for them is remembered and the checks are shorter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmul_calls import operands

import kernelwright as kw
from kernelwright.kernels import settings
from kernelwright.kernels.errors import (
    DTypeError,
    KernelwrightError,
    LayoutError,
    OverlapError,
    ShapeError,
)
from kernelwright.kernels.op import TensorSpec

SIZES = {"lane": (12, 10, 14), "memo": (90, 80, 100)}
"""m, k, n of calls that a compiled lane takes, and of calls that are remembered one by one."""


@pytest.fixture(params=["first call", "lane", "memo"])
def known(request: pytest.FixtureRequest) -> Iterator[tuple[int, int, int]]:
    """m, k, n; for "lane" and "memo" after good calls with and without out, Arrays and not."""
    settings.clear_memos()
    kind = str(request.param)
    m, k, n = SIZES["lane" if kind == "first call" else kind]
    if kind != "first call":
        for _ in range(2):
            for out in (None, np.empty((m, n), "f4"), np.empty((n, m), "f4").T, spread(m, n)):
                a, b = operands(m, k, n)
                kw.matmul(a, b, out=out)
                kw.matmul(kw.asarray(a), kw.asarray(b), out=None if out is None else kw.asarray(out))
        keys = list(settings.current().memo)
        assert any(key == np.dtype("f4") if kind == "lane" else type(key) is tuple for key in keys), keys
    yield m, k, n
    settings.clear_memos()


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "f4")


def spread(m: int, n: int) -> np.ndarray:
    """A matrix with free elements between its rows."""
    return np.zeros((m, n + 5), "f4")[:, 2 : n + 2]


Bad = Callable[[int, int, int], tuple[Any, Any, Any]]


def refused(call: tuple[Any, Any, Any], error: type[Exception], text: str) -> None:
    """The call raises, and leaves every bit of all three as it was."""
    a, b, out = call
    buffers = [memory(x) for x in call]
    before = [buffer.tobytes() for buffer in buffers]
    for wrap in (lambda x: x, kw.Array if all(type(x) is np.ndarray for x in (a, b)) else lambda x: x):
        target = wrap(out) if type(out) is np.ndarray else out
        with pytest.raises(error, match=text) as found:
            kw.matmul(wrap(a), wrap(b), out=target)
        assert isinstance(found.value, KernelwrightError)
        assert [buffer.tobytes() for buffer in buffers] == before, "written to"


def memory(x: Any) -> np.ndarray:
    """All the memory that an array is a view of."""
    array = np.asarray(x) if isinstance(x, kw.Array | np.ndarray) else np.zeros(0)
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# --- out ----------------------------------------------------------------------------------------------------


def other_out(make: Callable[[int, int], Any]) -> Bad:
    return lambda m, k, n: (*operands(m, k, n), make(m, n))


def read_only(m: int, n: int) -> np.ndarray:
    out = np.zeros((m, n), "f4")
    out.flags.writeable = False
    return out


def unaligned(m: int, n: int, dtype: str = "f4") -> np.ndarray:
    size = np.dtype(dtype).itemsize
    array = np.zeros(m * n * size + 1, np.uint8)[1:].view(dtype).reshape(m, n)
    assert not array.flags.aligned
    return array


def overlapping_rows(m: int, n: int) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(np.zeros(m * n + n, "f4"), (m, n), (4 * n - 4, 4))


OUTS: dict[str, tuple[Callable[[int, int], Any], type[Exception], str]] = {
    "shape": (
        lambda m, n: np.zeros((m, n + 1), "f4"),
        ShapeError,
        r"out has shape \(\d+, \d+\), but the result",
    ),
    "transposed shape": (lambda m, n: np.zeros((n, m), "f4"), ShapeError, "out has shape"),
    "fewer axes": (lambda m, n: np.zeros(m * n, "f4"), ShapeError, "out has shape"),
    "more axes": (lambda m, n: np.zeros((1, m, n), "f4"), ShapeError, "out has shape"),
    "empty": (lambda m, n: np.zeros((0, n), "f4"), ShapeError, "out has shape"),
    "wider dtype": (
        lambda m, n: np.zeros((m, n), "f8"),
        DTypeError,
        "out is float64, but the result is",
    ),
    "narrower dtype": (lambda m, n: np.zeros((m, n), "f2"), DTypeError, "out is float16"),
    "whole numbers": (lambda m, n: np.zeros((m, n), "i4"), DTypeError, "out is int32"),
    "byte order": (lambda m, n: np.zeros((m, n), ">f4"), DTypeError, "out is >f4"),
    "objects": (lambda m, n: np.zeros((m, n), object), DTypeError, "out is object"),
    "read-only": (read_only, LayoutError, "is read-only"),
    "repeated": (
        lambda m, n: np.lib.stride_tricks.as_strided(np.zeros(n, "f4"), (m, n), (0, 4)),
        LayoutError,
        "stride of 0 puts several elements in one place",
    ),
    "rows reversed": (lambda m, n: np.zeros((m, n), "f4")[::-1], LayoutError, "negative strides"),
    "columns reversed": (lambda m, n: np.zeros((m, n), "f4")[:, ::-1], LayoutError, "negative strides"),
    "steps": (
        lambda m, n: np.zeros((m, 2 * n), "f4")[:, ::2],
        LayoutError,
        "neither its last nor its last",
    ),
    "overlapping rows": (overlapping_rows, LayoutError, "rows overlap each other"),
    "unaligned": (unaligned, LayoutError, "unaligned address"),
    "no array": (
        lambda m, n: [[0.0] * n] * m,
        DTypeError,
        "out must be a .*, got list",
    ),
    "masked": (lambda m, n: np.ma.masked_array(np.zeros((m, n), "f4")), DTypeError, "out is a masked array"),
}


@pytest.mark.parametrize("name", OUTS)
def test_an_out_that_cannot_take_the_result_is_refused(known: tuple[int, int, int], name: str) -> None:
    make, error, text = OUTS[name]
    refused(other_out(make)(*known), error, text)


def test_the_text_of_a_refusal_shows_what_to_write(known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = operands(m, k, n)
    with pytest.raises(ShapeError, match=re.escape(f"write out = np.empty(({m}, {n}), 'float32')")):
        kw.matmul(a, b, out=np.empty((m, n + 1), "f4"))


def inside_a(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    room = np.random.default_rng(0).standard_normal(m * (k + n)).astype("f4")
    a, out = room[: m * k].reshape(m, k), room[m * k - 1 : m * k - 1 + m * n].reshape(m, n)
    return a, operands(m, k, n)[1], out


def exactly_a(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    a, b = operands(m, n, n)
    return a, b, a


def exactly_b(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    a, b = operands(m, m, n)
    return a, b, b


def a_transposed(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    a, b = operands(m, m, m)
    return a, b, a.T


def all_the_same(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    a, _ = operands(m, m, m)
    return a, a, a


def around_b(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    """b is a window of a larger out."""
    out = np.zeros((m, n), "f4")
    k = min(k, m)
    return operands(m, k, n)[0], out[:k], out


def one_element(m: int, k: int, n: int) -> tuple[Any, Any, Any]:
    """out begins where a ends."""
    room = np.zeros(m * k + m * n, "f4")
    return room[m * k :: -1][: m * k].reshape(m, k), operands(m, k, n)[1], room[m * k :].reshape(m, n)


@pytest.mark.parametrize(
    "make", [inside_a, exactly_a, exactly_b, a_transposed, all_the_same, around_b, one_element]
)
def test_an_out_that_overlaps_an_input_is_refused(known: tuple[int, int, int], make: Bad) -> None:
    call = make(*known)
    if make is not all_the_same:  # the same shapes and strides, where nothing overlaps, are remembered
        good = [TensorSpec.of(x).empty() for x in call]
        for array in good:
            array[...] = 1
        if known == SIZES["memo"]:
            for _ in range(2):
                kw.matmul(good[0], good[1], out=good[2])
    refused(call, OverlapError, r"out shares memory with [ab], which is read while out is written")


def test_an_out_beside_and_between_an_input_is_no_overlap(known: tuple[int, int, int]) -> None:
    m, k, n = known
    k = n  # so that both fit into one another's gaps
    a, b = operands(m, k, n)
    expected = np.asarray(kw.matmul(a, b)).copy()
    sides = np.zeros((m, 2 * n), "f4")
    rows = np.zeros((2 * m, n), "f4")
    ends = np.zeros((2 * m, n), "f4")
    for left, out in ((sides[:, :k], sides[:, n:]), (rows[::2], rows[1::2]), (ends[:m], ends[m:])):
        for _ in range(3):
            left[...], out[...] = a, np.nan
            kw.matmul(left, b, out=out)
            assert np.array_equal(left, a), "the input between the output's rows is as it was"
            np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


# --- operands -----------------------------------------------------------------------------------------------

INPUTS: dict[str, tuple[Bad, type[Exception], str]] = {
    "inner lengths": (
        lambda m, k, n: (ones(m, k), np.ones((k + 1, n), "f4"), None),
        ShapeError,
        r"with \d+ columns, but b is .*, with \d+ rows; they must be equal",
    ),
    "b not transposed": (
        lambda m, k, n: (ones(m, k), np.ones((n, k), "f4"), None),
        ShapeError,
        r"b fits when transposed: matmul\(a, b\.T\)",
    ),
    "a scalar": (lambda m, k, n: (np.float32(2), ones(k, n), None), DTypeError, r"a must be .* got float32"),
    "0-D": (lambda m, k, n: (ones(), ones(k, n), None), ShapeError, r"a is 0-D.*a \* b"),
    "batches": (
        lambda m, k, n: (np.ones((2, m, k), "f4"), np.ones((3, k, n), "f4"), None),
        ShapeError,
        r"batch axes \(2,\) of a .* and \(3,\) of b .* do not broadcast",
    ),
    "mixed dtypes": (
        lambda m, k, n: (ones(m, k), np.ones((k, n), "f8"), None),
        DTypeError,
        "a is float32 but b is float64; nothing is converted silently",
    ),
    "mixed dtypes, the other way": (
        lambda m, k, n: (np.ones((m, k), "f8"), ones(k, n), None),
        DTypeError,
        "a is float64 but b is float32",
    ),
    "byte order": (
        lambda m, k, n: (np.ones((m, k), ">f4"), np.ones((k, n), ">f4"), None),
        DTypeError,
        r"byte order of another machine; write x\.astype",
    ),
    "objects": (
        lambda m, k, n: (np.ones((m, k), object), np.ones((k, n), object), None),
        DTypeError,
        "holds Python objects, not numbers",
    ),
    "one of objects": (
        lambda m, k, n: (ones(m, k), np.full((k, n), None), None),
        DTypeError,
        "holds Python objects",
    ),
    "text": (lambda m, k, n: (np.full((m, k), "x"), np.full((k, n), "x"), None), DTypeError, "is not one of"),
    "complex": (
        lambda m, k, n: (np.ones((m, k), "c8"), np.ones((k, n), "c8"), None),
        DTypeError,
        "Complex numbers are not supported",
    ),
    "dates": (
        lambda m, k, n: (np.zeros((m, k), "M8[s]"), ones(k, n), None),
        DTypeError,
        "is not one of",
    ),
    "records": (
        lambda m, k, n: (np.zeros((m, k), [("x", "f4")]), ones(k, n), None),
        DTypeError,
        "is not one of",
    ),
    "lists": (
        lambda m, k, n: ([[1.0] * k] * m, ones(k, n), None),
        DTypeError,
        r"a must be .* got list",
    ),
    "None": (lambda m, k, n: (ones(m, k), None, None), DTypeError, r"b must be .* got NoneType"),
    "a Python number": (
        lambda m, k, n: (2.0, ones(k, n), None),
        DTypeError,
        r"a must be .* got float",
    ),
    "masked": (
        lambda m, k, n: (np.ma.masked_array(ones(m, k)), ones(k, n), None),
        DTypeError,
        r"a is a masked array, and its mask would be lost; fill it first: a\.filled\(0\)",
    ),
    "unaligned a": (
        lambda m, k, n: (unaligned(m, k), ones(k, n), None),
        LayoutError,
        r"write x\.copy\(\) to get it aligned",
    ),
    "unaligned b": (
        lambda m, k, n: (ones(m, k), unaligned(k, n), None),
        LayoutError,
        r"write x\.copy\(\) to get it aligned",
    ),
}
for _name in ("i1", "i4", "i8", "u1", "u8", "?"):
    INPUTS[f"dtype {_name}"] = (
        lambda m, k, n, dtype=_name: (np.ones((m, k), dtype), np.ones((k, n), dtype), None),  # type: ignore[misc]
        DTypeError,
        r"matmul takes float32, float64, bfloat16 or float16, got \w+; nothing is converted silently",
    )


@pytest.mark.parametrize("with_out", [False, True])
@pytest.mark.parametrize("name", INPUTS)
def test_operands_that_cannot_be_multiplied_are_refused(
    known: tuple[int, int, int], name: str, with_out: bool
) -> None:
    make, error, text = INPUTS[name]
    m, k, n = known
    a, b, _ = make(m, k, n)
    refused((a, b, np.zeros((m, n), "f4") if with_out else None), error, text)


def test_the_operator_refuses_alike(known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = (kw.asarray(x) for x in operands(m, k, n))
    with pytest.raises(ShapeError, match="b fits when transposed"):
        _ = a @ kw.asarray(np.ones((n, k), "f4"))
    with pytest.raises(ShapeError, match="with"):
        _ = np.ones((m, k + 1), "f4") @ b
    with pytest.raises(DTypeError, match="nothing is converted silently"):
        _ = a @ np.ones((k, n))
    with pytest.raises(DTypeError, match="nothing is converted silently"):
        _ = np.ones((m, k)) @ b
    with pytest.raises(DTypeError, match="Python objects"):
        _ = a @ np.ones((k, n), object)
    with pytest.raises(DTypeError, match="Python objects"):
        _ = np.ones((m, k), object) @ b
    with pytest.raises(DTypeError, match="masked array"):
        _ = a @ np.ma.masked_array(ones(k, n))
    with pytest.raises(DTypeError, match="masked array"):
        _ = np.ma.masked_array(ones(m, k)) @ b
    for other in ([[1.0] * n] * k, 2.0, None, "b"):
        with pytest.raises(TypeError, match="unsupported operand"):
            _ = a @ other  # type: ignore[operator]
        with pytest.raises(TypeError, match="unsupported operand"):
            _ = other @ a  # type: ignore[operator]


def test_out_is_no_positional_argument() -> None:
    a, b = operands(3, 4, 5)
    with pytest.raises(TypeError, match="positional"):
        kw.matmul(a, b, np.empty((3, 5), "f4"))  # type: ignore[misc]


def test_a_good_call_after_refusals_is_right(known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = operands(m, k, n)
    for make, error, _ in OUTS.values():
        with pytest.raises(error):
            kw.matmul(a, b, out=make(m, n))
    np.testing.assert_allclose(np.asarray(kw.matmul(a, b)), a @ b, rtol=1e-4, atol=1e-4)


# --- kinds of arrays ----------------------------------------------------------------------------------------


def test_arrays_and_numpys_mix_as_they_like(known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = operands(m, k, n)
    expected = np.asarray(kw.matmul(a, b)).tobytes()
    for wrapped in range(8):
        x, y = (kw.asarray(z) if wrapped >> i & 1 else z for i, z in enumerate((a, b)))
        out = np.full((m, n), np.nan, "f4")
        target = kw.asarray(out) if wrapped & 4 else out
        result = kw.matmul(x, y, out=target)
        assert type(result) is kw.Array
        assert result is target or not wrapped & 4
        assert np.shares_memory(np.asarray(result), out)
        assert out.tobytes() == expected
        if wrapped & 3:
            assert type(x @ y) is kw.Array
            assert np.asarray(x @ y).tobytes() == expected


def test_a_matrix_of_numpy_gives_and_takes_plain_results(known: tuple[int, int, int]) -> None:
    """np.matrix, whose slices are matrices again: it is refused, or nothing of it is left in the result."""
    m, k, n = known
    a, b = operands(m, k, n)
    matrix = a.view(np.matrix)
    for x, y in ((matrix, b), (kw.asarray(a), b.view(np.matrix)), (matrix, b.view(np.matrix))):
        assert_plain(kw.matmul(x, y), a @ b)
    assert_plain(matrix @ kw.asarray(b), a @ b)
    out = np.zeros((m, n), "f4").view(np.matrix)
    try:
        result = kw.matmul(a, b, out=out)
    except DTypeError:
        assert not out.any()
    else:
        assert_plain(result, a @ b)


def assert_plain(result: Any, expected: np.ndarray) -> None:
    assert type(result) is kw.Array
    assert type(np.asarray(result)) is np.ndarray
    assert result[0].shape == expected[0].shape
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-4, atol=1e-4)


def test_memory_mapped_files_are_read_and_written(tmp_path: Path, known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = operands(m, k, n)
    for name, array in (("a", a), ("out", np.zeros((m, n), "f4"))):
        np.save(tmp_path / f"{name}.npy", array)
    left = np.load(tmp_path / "a.npy", mmap_mode="r")
    out = np.load(tmp_path / "out.npy", mmap_mode="r+")
    assert_plain(kw.matmul(left, b, out=out), a @ b)
    out.flush()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), a @ b, rtol=1e-4, atol=1e-4)
    closed = np.load(tmp_path / "out.npy", mmap_mode="r")
    with pytest.raises(LayoutError, match="read-only"):
        kw.matmul(left, b, out=closed)


def test_read_only_operands_are_read(known: tuple[int, int, int]) -> None:
    m, k, n = known
    a, b = operands(m, k, n)
    expected = np.asarray(kw.matmul(a, b)).tobytes()
    a.flags.writeable = b.flags.writeable = False
    assert np.asarray(kw.matmul(a, b)).tobytes() == expected


def test_results_are_never_the_memory_of_earlier_results(known: tuple[int, int, int]) -> None:
    a, b = operands(*known)
    results = [np.asarray(kw.matmul(a, b)) for _ in range(4)]
    assert not any(np.shares_memory(x, y) for i, x in enumerate(results) for y in results[:i])
