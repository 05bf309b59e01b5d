"""Arrays: making them, sharing their memory, and the checks that every eager call goes through."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.eager import layout_problem, overlaps
from kernelwright.kernels.errors import (
    DeviceError,
    DTypeError,
    LayoutError,
    NoKernelError,
    OverlapError,
    RegistrationError,
    ShapeError,
)

X = np.arange(12, dtype="f4").reshape(3, 4)


# Making arrays.


def test_array_copies_and_asarray_shares() -> None:
    x = X.copy()
    copied, shared = kw.array(x), kw.asarray(x)
    assert kw.asarray(shared) is shared
    x[0, 0] = 99
    assert float(copied[0, 0]) == 0
    assert float(shared[0, 0]) == 99
    assert np.asarray(shared) is x
    assert np.shares_memory(np.asarray(kw.asarray(shared, dtype="float32")), x)


def test_a_copy_has_plain_rows() -> None:
    assert kw.array(X.T).spec is kw.TensorSpec((4, 3), "float32")
    assert kw.array(np.broadcast_to(X[0], (5, 4))).strides == (16, 4)


@pytest.mark.parametrize(
    ("x", "dtype", "shape"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], "float64", (2, 2)),
        ([1, 2, 3], "int64", (3,)),
        (True, "bool", ()),
        (2.5, "float64", ()),
        ([], "float64", (0,)),
        (np.float32(1), "float32", ()),
        (range(3), "int64", (3,)),
        ([np.ones(2, "f4"), np.zeros(2, "f4")], "float32", (2, 2)),
        (X.astype(">f4"), "float32", (3, 4)),
    ],
)
def test_array_takes_lists_numbers_and_arrays(x: Any, dtype: str, shape: tuple[int, ...]) -> None:
    made = kw.array(x)
    assert made.spec is kw.TensorSpec(shape, dtype)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(x))


def test_a_list_of_arrays_is_stacked() -> None:
    assert kw.array([kw.array([1.0, 2.0]), [3.0, 4.0]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_array_converts_when_asked() -> None:
    assert kw.array([1, 2], dtype="float32").dtype == np.float32
    assert kw.array(X, dtype=np.float64).dtype == np.float64
    assert kw.asarray(X, dtype="bfloat16").dtype.name == "bfloat16"
    assert kw.array(X).astype("float16").spec is kw.TensorSpec((3, 4), "float16")


@pytest.mark.parametrize(
    ("x", "options", "error", "text"),
    [
        ([[1.0], [2.0, 3.0]], {}, ShapeError, "nested lists form no array.*same length"),
        (np.array([1, "a"], object), {}, DTypeError, "Python objects"),
        ([1.0, None], {}, DTypeError, "Python objects"),
        ({"a": 1}, {}, DTypeError, "a dict of Python objects"),
        ("text", {}, DTypeError, "dtype"),
        (np.array(["a"]), {}, DTypeError, "not one of this package's"),
        (X + 1j, {}, DTypeError, "x.real and x.imag"),
        (X + 1j, {"dtype": "float32"}, DTypeError, "x.real and x.imag"),
        (np.zeros(2, "M8[s]"), {}, DTypeError, "datetime64"),
        (np.zeros(2, "f4,f4"), {}, DTypeError, "not one of"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), {}, DTypeError, r"mask.*x\.filled\(0\)"),
        (X, {"dtype": "float33"}, DTypeError, "Did you mean 'float32'"),
        (X, {"dtype": object}, DTypeError, "Python objects"),
        (X, {"device": "gpu"}, DeviceError, "'gpu' is unknown; write 'cpu'"),
        (X, {"device": "cuda:99"}, DeviceError, "there is no 'cuda:99' here"),
    ],
)
@pytest.mark.parametrize("make", ["array", "asarray"])
def test_what_is_no_array_of_numbers_is_refused(
    make: str, x: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        getattr(kw, make)(x, **options)


def test_asarray_does_not_change_a_byte_order_silently() -> None:
    with pytest.raises(DTypeError, match=r"byte order of another machine; write x\.astype\('float32'\)"):
        kw.asarray(X.astype(">f4"))


# What an Array shows.


def test_an_array_describes_itself() -> None:
    a = kw.array(X)
    assert (a.shape, a.ndim, a.size, a.nbytes) == ((3, 4), 2, 12, 48)
    assert (a.dtype, a.strides, a.device) == (np.float32, (16, 4), "cpu")
    assert str(a.spec) == "f32[3,4]@cpu"
    assert str(a.T.spec) == "f32[4,3; 4,16]@cpu"
    assert len(a) == 3
    assert a.tolist() == X.tolist()


def test_a_repr_is_readable_and_short() -> None:
    assert repr(kw.array([[1.0, 2.0]], dtype="float32")) == "Array(f32[1,2]@cpu, [[1., 2.]])"
    assert repr(kw.array(3)) == "Array(i64[]@cpu, 3)"
    two = repr(kw.array(X[:2, :2]))
    assert two.splitlines()[1].index("[") == two.splitlines()[0].index("[[") + 1, "columns are aligned"
    assert len(repr(kw.array(np.zeros((1000, 1000))))) < 1000
    assert "bf16[2]" in repr(kw.array([1, 2], dtype="bfloat16"))


def test_indexing_gives_views() -> None:
    a = kw.array(X)
    row = a[1]
    np.asarray(a)[1, 0] = 77
    assert row.tolist()[0] == 77
    assert a[0, 1].shape == ()
    assert a[0, ::-2].tolist() == X[0, ::-2].tolist()
    assert a[kw.array([0, 2])].shape == (2, 4)
    assert a[..., None].shape == (3, 4, 1)
    assert [r.tolist() for r in a] == a.tolist()
    with pytest.raises(IndexError):
        a[3]


def test_shapes_can_be_changed() -> None:
    a = kw.array(X)
    assert np.shares_memory(np.asarray(a.T), np.asarray(a))
    assert np.shares_memory(np.asarray(a.reshape(4, 3)), np.asarray(a))
    assert a.reshape((2, -1)).shape == (2, 6)
    assert a.swapaxes(0, 1).shape == (4, 3)
    assert not np.shares_memory(np.asarray(a.copy()), np.asarray(a))
    with pytest.raises(ShapeError, match=r"x \(3, 4\) has 12 elements"):
        a.reshape(5, 5)


def test_one_number_is_a_python_number() -> None:
    one = kw.array([[2.5]])
    assert (one.item(), float(one), int(one), bool(one)) == (2.5, 2.5, 2, True)
    with pytest.raises(ShapeError, match=r"f32\[3,4\]@cpu has 12"):
        kw.array(X).item()
    with pytest.raises(ShapeError):
        bool(kw.array(X))
    with pytest.raises(DTypeError, match=r"a\.item\(\)"):
        len(kw.array(1.0))


def test_arrays_are_copied_and_pickled_whole() -> None:
    a = kw.array(X)
    for other in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert other.tolist() == a.tolist()
        assert not np.shares_memory(np.asarray(other), np.asarray(a))


# NumPy and DLPack.


def test_numpy_reads_an_array_without_a_copy() -> None:
    a = kw.array(X)
    view = np.asarray(a)
    assert np.shares_memory(view, np.asarray(a, copy=False))
    view[0, 0] = 5
    assert float(a[0, 0]) == 5
    assert not np.shares_memory(np.array(a), view)
    assert np.asarray(a, dtype="f8").dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(a, dtype="f8", copy=False)


def test_dlpack_goes_both_ways_without_a_copy() -> None:
    a = kw.array(X)
    out = np.from_dlpack(a)
    assert np.shares_memory(out, np.asarray(a))
    back = kw.from_dlpack(a)
    assert np.shares_memory(np.asarray(back), np.asarray(a))
    assert a.__dlpack_device__() == (1, 0)


def test_torch_shares_memory_both_ways() -> None:
    torch = pytest.importorskip("torch", reason="waits for torch")
    a = kw.array(X)
    tensor = torch.from_dlpack(a)
    tensor[0, 0] = 5
    assert float(a[0, 0]) == 5
    b = kw.from_dlpack(tensor.T)
    assert b.strides == (4, 16)
    tensor[0, 0] = 6
    assert float(b[0, 0]) == 6
    assert float(kw.array(tensor)[0, 0]) == float(kw.asarray(tensor)[0, 0]) == 6
    with pytest.raises(DTypeError, match=r"x\.detach\(\)"):
        kw.from_dlpack(tensor.requires_grad_())
    with pytest.raises(DTypeError, match=r"bfloat16 wants x\.float\(\)"):
        kw.from_dlpack(torch.zeros(2, dtype=torch.bfloat16))


def test_what_dlpack_cannot_carry_is_explained() -> None:
    with pytest.raises(DTypeError, match=r"cannot hand bfloat16 over.*a\.astype\('float32'\)"):
        np.from_dlpack(kw.array([1], dtype="bfloat16"))
    with pytest.raises(DTypeError, match=r"takes a tensor with __dlpack__, got list; write kw\.array\(x\)"):
        kw.from_dlpack([1.0])

    class OnAGpu:
        def __dlpack__(self) -> None: ...
        def __dlpack_device__(self) -> tuple[int, int]:
            return 4, 0

    with pytest.raises(DeviceError, match=r"device type 4.*x\.cpu\(\)"):
        kw.from_dlpack(OnAGpu())


# Operators and calls.


def test_the_operator_takes_arrays_and_numpy_arrays_on_either_side() -> None:
    a = kw.array(X)
    expected = X @ X.T
    for product in (a @ a.T, a @ X.T, X @ a.T, kw.matmul(X, X.T)):
        assert isinstance(product, kw.Array)
        np.testing.assert_allclose(np.asarray(product), expected, rtol=1e-6)
    with pytest.raises(TypeError):
        a @ [[1.0]]
    with pytest.raises(TypeError):
        [[1.0]] @ a


def test_a_dot_product_is_zero_dimensional() -> None:
    product = kw.matmul(X[0], X[1])
    assert isinstance(product, kw.Array)
    assert product.shape == ()
    assert float(product) == float(X[0] @ X[1])


def test_out_is_written_and_returned() -> None:
    expected = X @ X.T
    out = kw.array(np.full((3, 3), np.nan, "f4"))
    assert kw.matmul(X, X.T, out=out) is out
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-6)
    plain = np.full((3, 3), np.nan, "f4")
    result = kw.matmul(X, X.T, out=plain)
    assert np.asarray(result) is plain
    np.testing.assert_allclose(plain, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "out",
    [
        np.full((3, 3), np.nan, "f4", order="F"),
        np.full((3, 8), np.nan, "f4")[:, 2:5],
        np.full((8, 3), np.nan, "f4").T[:, 2:5],
        np.full((6, 3), np.nan, "f4")[::2],
    ],
)
def test_out_may_be_a_window_and_may_be_transposed(out: np.ndarray) -> None:
    around = np.array(out.base) if out.base is not None else None
    out = out if out.shape == (3, 3) else out[:3]
    kw.matmul(X, X.T, out=out)
    np.testing.assert_allclose(out, X @ X.T, rtol=1e-6)
    if around is not None and out.base is not None:
        assert np.isnan(out.base).sum() == np.isnan(around).sum() - 9, "nothing beside it is written"


def writable(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(np.zeros(400, "f4")[offset:], shape, strides)


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.zeros((3, 4), "f4"), ShapeError, r"out has shape \(3, 4\).*np\.empty\(\(3, 3\), 'float32'\)"),
        (np.zeros((1, 3, 3), "f4"), ShapeError, "out has shape"),
        (np.zeros((3, 3)), DTypeError, "out is float64, but the result is float32"),
        (np.zeros((3, 3), object), DTypeError, "object"),
        (np.zeros((3, 3), ">f4"), DTypeError, "out is >f4"),
        ([[0.0] * 3] * 3, DTypeError, "must be a kernelwright Array or a NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (3, 3)), LayoutError, "read-only"),
        (writable((3, 3), (0, 4)), LayoutError, r"byte strides \(0, 4\): a stride of 0"),
        (writable((3, 3), (12, 0)), LayoutError, "a stride of 0"),
        (np.zeros((3, 3), "f4")[::-1], LayoutError, "negative strides"),
        (np.zeros((3, 3), "f4")[:, ::-1], LayoutError, "negative strides"),
        (np.zeros((6, 6), "f4")[::2, ::2], LayoutError, "neither its last nor its last but one axis"),
        (writable((3, 3), (4, 4)), LayoutError, "rows overlap"),
        (writable((3, 3), (8, 4)), LayoutError, "rows overlap"),
        (np.zeros(40, "i1")[1:37].view("f4").reshape(3, 3), LayoutError, "unaligned"),
        (np.ma.zeros((3, 3), "f4"), DTypeError, "masked"),
    ],
)
def test_a_wrong_out_is_refused_before_it_is_written(out: Any, error: type[Exception], text: str) -> None:
    before = np.array(out)
    with pytest.raises(error, match=text):
        kw.matmul(X, X.T, out=out)
    np.testing.assert_array_equal(np.array(out), before)


def test_out_must_not_share_memory_with_an_input() -> None:
    square = np.ones((4, 4), "f4")
    before = square.copy()
    for a, b, out, name in (
        (square, np.ones((4, 4), "f4"), square, "a"),
        (np.ones((4, 4), "f4"), square.T, square, "b"),
        (square[:2, :2], square[2:, 2:], square[1:3, 1:3], "a"),
        (kw.asarray(square), square, kw.asarray(square), "a"),
    ):
        with pytest.raises(OverlapError, match=rf"out shares memory with {name}.*np\.empty_like\(out\)"):
            kw.matmul(a, b, out=out)
    np.testing.assert_array_equal(square, before)


def test_out_may_lie_between_the_elements_of_an_input() -> None:
    memory = np.ones((4, 8), "f4")
    kw.matmul(memory[:, :4], np.eye(4, dtype="f4"), out=memory[:, 4:])
    kw.matmul(memory[:2, :4], memory[2:, :4].T, out=memory[:2, 4:6])


def test_overlap_is_decided_exactly() -> None:
    x = np.zeros((6, 8), "f4")
    assert not overlaps(x[:, ::2], x[:, 1::2])
    assert not overlaps(x[:3], x[3:])
    assert overlaps(x[:4], x[3:])
    assert overlaps(x[::2], x[::3])
    assert not overlaps(x[:0], x)
    assert not overlaps(x, np.zeros((6, 8), "f4"))


def test_outs_of_length_one_are_judged_by_their_other_axes() -> None:
    assert layout_problem(np.zeros((1, 6), "f4")[:, ::2]) is not None
    assert layout_problem(np.zeros((6, 8), "f4")[:, :1]) is None
    assert layout_problem(np.zeros((6, 8), "f4")[:1]) is None
    assert layout_problem(np.zeros((5, 1, 4), "f4").swapaxes(0, 1)) is None
    assert layout_problem(np.zeros((0, 4), "f4")[:, ::-1]) is None


def test_operands_that_are_no_arrays_are_refused() -> None:
    with pytest.raises(DTypeError, match=r"matmul: a must be .* got list; write kw\.array\(a\)"):
        kw.matmul([[1.0]], X)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="matmul: b is a masked array"):
        kw.matmul(X, np.ma.zeros((4, 2), "f4"))
    with pytest.raises(DTypeError, match="Python objects"):
        kw.matmul(X.astype(object), X.T.astype(object))
    with pytest.raises(DTypeError, match="a is float32 but b is float64"):
        kw.matmul(X, X.T.astype("f8"))
    with pytest.raises(DTypeError, match="takes float32, float64, bfloat16 or float16, got int32"):
        kw.matmul(X.astype("i4"), X.T.astype("i4"))
    with pytest.raises(ShapeError, match=r"b fits when transposed"):
        kw.matmul(X, X)


def test_an_empty_result_needs_no_kernel() -> None:
    with kw.using(strict=True, backend="no such kernel"), pytest.raises(NoKernelError):
        kw.matmul(X, X.T)
    assert kw.matmul(X[:0], X.T).shape == (0, 3)
    np.testing.assert_array_equal(np.asarray(kw.matmul(X[:, :0], X.T[:0])), np.zeros((3, 3)))


def test_explain_takes_a_function_a_name_or_specs() -> None:
    text = str(kw.explain(kw.matmul, X, X.T))
    assert text.startswith("matmul(a: f32[3,4]@cpu, b: f32[4,3; 4,16]@cpu) -> f32[3,3]@cpu")
    spec = kw.TensorSpec((4096, 4096), "float32")
    assert kw.explain("matmul", spec, spec).cost.flops == 2 * 4096**3
    wide = kw.TensorSpec((3, 3), "float32", layout=(64, 4))
    assert "-> f32[3,3; 64,4]@cpu" in str(kw.explain(kw.matmul, X, X.T, out=wide))


def test_explain_refuses_what_is_no_operation() -> None:
    with pytest.raises(RegistrationError, match="there is no op 'print'"):
        kw.explain(print, X)
    with pytest.raises(RegistrationError, match=r"takes an operation such as kw\.matmul"):
        kw.explain(3, X)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"matmul\(a, b\) takes 2 inputs, got 1"):
        kw.explain(kw.matmul, X)
    with pytest.raises(DTypeError, match="takes 2 inputs, got 3"):
        kw.explain(kw.matmul, X, X.T, X)
    with pytest.raises(DTypeError, match="no attribute 'alpha'"):
        kw.explain(kw.matmul, X, X.T, alpha=2)


# The face.


def test_every_public_name_is_there() -> None:
    promised = (Path(__file__).parent / "public_names.txt").read_text(encoding="utf-8").split()
    assert sorted(name for name in kw.__all__ if not name.startswith("__")) == sorted(promised)
    for name in kw.__all__:
        assert getattr(kw, name) is not None
        assert name in dir(kw)
    assert kw.errors.ShapeError is ShapeError
    assert callable(kw.array)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="no attribute 'matmull'; did you mean matmul"):
        _ = kw.matmull
    with pytest.raises(AttributeError, match="it has Array, Cost"):
        _ = kw.xyzzy
    assert not hasattr(kw, "__wrapped__")


def test_importing_a_room_from_the_source_tree_says_what_to_write(tmp_path: Any) -> None:
    root = os.path.dirname(kw.__file__)
    for room in ("kernels", "engine"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {room}"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert (
            f"write `import kernelwright as kw`, or `from kernelwright import {room}`"
            in done.stderr.replace("Write", "write")
        )
