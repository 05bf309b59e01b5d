"""What an operation is described with: specs, costs, attributes, and names."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from toy_op import TOY

from kernelwright.kernels import op as op_module
from kernelwright.kernels import spec as spec_module
from kernelwright.kernels.errors import DeviceError, DTypeError, LayoutError, RegistrationError, ShapeError
from kernelwright.kernels.op import Cost, Op, Sample, TensorSpec, get_op, ops, problem_key, register_op
from kernelwright.kernels.spec import dtype_name, extent, row_major


def test_equal_specs_are_one_object() -> None:
    spec = TensorSpec((2, 3), "float32")
    assert TensorSpec((2, 3), "float32", "cpu", None) is spec
    assert TensorSpec([2, np.int64(3)], np.float32) is spec  # type: ignore[arg-type]
    assert TensorSpec((2, 3), "float32", layout=(12, 4)) is spec
    assert TensorSpec.of(np.zeros((2, 3), "f4")) is spec
    assert pickle.loads(pickle.dumps(spec)) is spec
    assert copy.deepcopy(spec) is spec
    assert TensorSpec((3, 2), "float32") is not spec


def test_specs_made_by_several_threads_are_one_object() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda i: TensorSpec((i % 50, 977), "float64"), range(2000)))
    assert len({id(spec) for spec in made}) == 50


def test_specs_that_nobody_holds_are_forgotten() -> None:
    gc.collect()
    before = len(spec_module._SPECS)
    for length in range(500):
        TensorSpec((length, 31337), "float32")
    gc.collect()
    assert len(spec_module._SPECS) - before < 10


def test_specs_print_shape_dtype_device_and_strides() -> None:
    assert str(TensorSpec((32, 128), "float32")) == "f32[32,128]@cpu"
    assert str(TensorSpec((32, 128), "float32", layout=(4, 128))) == "f32[32,128; 4,128]@cpu"
    assert str(TensorSpec((), "bfloat16", "cuda:1")) == "bf16[]@cuda:1"


def test_specs_cannot_be_changed() -> None:
    spec = TensorSpec((2,), "float32")
    with pytest.raises(AttributeError, match="frozen"):
        spec.shape = (3,)
    with pytest.raises(AttributeError, match="frozen"):
        del spec.dtype


def test_sizes_of_a_spec() -> None:
    spec = TensorSpec((4, 5), "bfloat16", layout=(2, 8))
    assert (spec.ndim, spec.size, spec.itemsize, spec.nbytes) == (2, 20, 2, 40)
    assert spec.np_dtype == ml_dtypes.bfloat16
    assert spec.strides == (2, 8)
    assert TensorSpec((4, 5), "float64").strides == (40, 8)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 6), "f4")[::2],
        np.zeros((4, 6), "f4").T,
        np.zeros((4, 6), "f8")[::-1, ::-1],
        np.broadcast_to(np.zeros(6, "f4"), (4, 6)),
        np.zeros((2, 3, 4), "f4").swapaxes(0, 2)[:, 1:, ::2],
        np.zeros((0, 4), "f4").T,
        np.float32(3.0) * np.ones(()),
    ],
)
def test_empty_makes_an_array_of_exactly_the_spec(array: np.ndarray) -> None:
    spec = TensorSpec.of(array)
    made = spec.empty()
    assert TensorSpec.of(made) is spec
    assert made.shape == array.shape
    if array.size and 1 not in array.shape:
        assert made.strides == array.strides


def test_strides_of_axes_of_length_one_and_of_empty_arrays_mean_nothing() -> None:
    row = np.zeros((8, 3), "f4").T[:1]  # [1, 8], strides (4, 12)
    assert TensorSpec.of(row).layout == (96, 12)
    column = np.zeros((8, 3), "f4")[:, :1]  # [8, 1], strides (12, 4)
    assert TensorSpec.of(column).layout == (12, 4)
    assert TensorSpec((1, 1), "float32", layout=(400, 8)).layout is None
    assert TensorSpec((0, 7), "float32", layout=(-4, 0)).layout is None


def test_empty_of_another_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="live on 'cpu'"):
        TensorSpec((2,), "float32", "cuda").empty()


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"shape": (2, -1)}, ShapeError, r"0 or more, got \(2, -1\)"),
        ({"shape": (2.5,)}, ShapeError, r"whole numbers such as \(32, 128\), got \(2.5,\)"),
        ({"shape": 7}, ShapeError, "got 7"),
        ({"dtype": "float23"}, DTypeError, "'float23'.*Did you mean 'float32'"),
        ({"dtype": "complex64"}, DTypeError, "x.real and x.imag"),
        ({"dtype": object}, DTypeError, "Python objects"),
        ({"dtype": None}, DTypeError, "None"),
        ({"dtype": ">f4"}, DTypeError, "byte order.*astype"),
        ({"device": "gpu"}, DeviceError, "'gpu' is unknown; write 'cpu', 'cuda' or 'cuda:0'"),
        ({"device": "cuda:x"}, DeviceError, "unknown"),
        ({"device": 0}, DeviceError, "unknown"),
        ({"layout": (4,)}, LayoutError, "2 axes but layout .* 1 strides"),
        ({"layout": (9, 4)}, LayoutError, "no multiples of the 4 bytes"),
        ({"layout": "ab"}, LayoutError, "byte strides such as"),
    ],
)
def test_a_wrong_field_is_refused_with_what_to_write(
    wrong: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        TensorSpec(**{"shape": (2, 3), "dtype": "float32", **wrong})  # type: ignore[arg-type]


def test_unaligned_arrays_are_refused() -> None:
    packed = np.zeros(5, np.dtype([("flag", "i1"), ("x", "f4")]))
    with pytest.raises(LayoutError, match=r"x\.copy\(\)"):
        TensorSpec.of(packed["x"])


def test_dtype_names() -> None:
    assert dtype_name("float32") == dtype_name(np.float32) == dtype_name(np.dtype("f4")) == "float32"
    assert dtype_name(float) == "float64"
    assert dtype_name(np.dtype(ml_dtypes.bfloat16)) == "bfloat16"
    assert dtype_name(bool) == "bool"


def test_extent_covers_every_element() -> None:
    assert extent((4, 6), (24, 4), 4) == (0, 96)
    assert extent((4, 6), (-24, 4), 4) == (-72, 24)
    assert extent((4, 6), (0, 4), 4) == (0, 24)
    assert extent((0, 6), (24, 4), 4) == (0, 0)
    assert row_major((2, 0, 3), 4) == (12, 12, 4)


def test_intensity_is_flop_per_byte() -> None:
    assert Cost(flops=12, bytes=4).intensity == 3.0
    assert Cost(flops=0, bytes=0).intensity == float("inf")


def test_a_sample_prints_its_specs() -> None:
    sample = Sample("a transposed", (np.zeros((2, 3), "f4").T,), {"alpha": 1})
    assert repr(sample) == "Sample('a transposed': f32[3,2; 4,12]@cpu, alpha=1)"


def test_attributes_are_completed_and_unknown_ones_refused() -> None:
    assert TOY.complete({}) == {"scale": 2.0}
    assert TOY.complete({"scale": 3.0}) == {"scale": 3.0}
    with pytest.raises(
        DTypeError, match=r"toy has no attribute 'scal'; it takes scale\. Did you mean 'scale'"
    ):
        TOY.complete({"scal": 3.0})


def test_inputs_must_have_one_dtype_that_the_op_takes() -> None:
    f32, f64, i32 = (TensorSpec((2,), dtype) for dtype in ("float32", "float64", "int32"))
    assert TOY.check_inputs((f32, f32)) == "float32"
    with pytest.raises(DTypeError, match=r"x is float32 but y is float64.*kw\.array\(y, dtype='float32'\)"):
        TOY.check_inputs((f32, f64))
    with pytest.raises(DTypeError, match="toy takes float32 or float64, got int32"):
        TOY.check_inputs((i32, i32))
    with pytest.raises(DTypeError, match="takes 2 inputs, got 1"):
        TOY.check_inputs((f32,))


def test_problem_keys_tell_layouts_and_attributes_apart() -> None:
    plain, transposed = TensorSpec((2, 3), "float32"), TensorSpec((2, 3), "float32", layout=(4, 8))
    keys = {
        problem_key(TOY, (plain, plain), {"scale": 2.0}),
        problem_key(TOY, (plain, transposed), {"scale": 2.0}),
        problem_key(TOY, (plain, plain), {"scale": 3.0}),
    }
    assert "toy(f32[2,3]@cpu, f32[2,3; 4,8]@cpu, scale=2.0)" in keys
    assert len(keys) == 3


def test_built_in_ops_are_found_by_name() -> None:
    assert get_op("matmul").name == "matmul"
    assert get_op("matmul") in ops()


def test_an_unknown_op_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        RegistrationError, match=r"no op 'matmull'; known are .*matmul.*Did you mean 'matmul'\?"
    ):
        get_op("matmull")


def test_an_op_declared_in_two_places_is_refused(toy: Op) -> None:
    assert register_op(TOY) is TOY, "the same declaration again is a reload"
    other = Op("toy", TOY.infer, max, TOY.cost, TOY.samples, TOY.reduction_length, ("x",))  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match=r"'toy' is declared twice: in .*toy_op\.py and in"):
        register_op(other)
    assert op_module._OPS["toy"] is TOY


def test_an_op_needs_a_name_and_inputs() -> None:
    with pytest.raises(RegistrationError, match="identifier such as 'matmul', got 'mat mul'"):
        Op("mat mul", TOY.infer, TOY.reference, TOY.cost, TOY.samples, TOY.reduction_length, ("x",))
    with pytest.raises(RegistrationError, match="at least one input"):
        Op("nothing", TOY.infer, TOY.reference, TOY.cost, TOY.samples, TOY.reduction_length, ())
