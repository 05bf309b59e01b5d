"""Functions over Arrays on a GPU: compiled, differentiated and called, on a stand-in whose kernels are
NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from numpy_cuda import numpy_kernels  # noqa: E402
from triton_interpreter import StandIn, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.cuda import CudaArray  # noqa: E402
from kernelwright.engine.gpu import scalars  # noqa: E402
from kernelwright.kernels.errors import (  # noqa: E402
    DeviceError,
    DonatedError,
    DTypeError,
    NoKernelError,
    TraceError,
)

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in(devices=2) as runtime, numpy_kernels(over_real=True):
        yield runtime


def some(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def numbers(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(kw.array(x, device="cpu"))


def on_gpu(tree: Any) -> Any:
    return kw.to_device(tree, "cuda:0")


def loss(w: Any, x: Any, y: Any) -> Any:
    return ((kw.tanh(x @ w["a"] + w["b"]) @ w["c"] - y) ** 2).mean()


def problem() -> tuple[Any, Any, Any]:
    return {"a": some(4, 6), "b": some(6), "c": some(6, 3)}, some(5, 4), some(5, 3)


def alike(here: Any, there: Any, rtol: float = 1e-5) -> None:
    from kernelwright.engine import tree

    for a, b in zip(tree.leaves(here), tree.leaves(there), strict=True):
        assert b.device.startswith("cuda")
        np.testing.assert_allclose(numbers(b), numbers(a), rtol=rtol, atol=1e-6)


# --- compiled functions -------------------------------------------------------------------------------------


def test_a_compiled_function_runs_where_its_arguments_are() -> None:
    f = kw.compile(loss)
    given = problem()
    alike(f(*given), f(*map(on_gpu, given)))
    assert f.graph.device == "cuda:0"
    assert all(value.spec.device == "cuda:0" for node in f.graph.nodes for value in node.outputs)
    assert f.traces == 2  # a plan for each device
    f(*given)
    f(*map(on_gpu, given))
    assert f.traces == 2


def test_torch_tensors_are_arguments_and_results_are_arrays() -> None:
    w, x, y = problem()
    there = {name: torch.from_numpy(part) for name, part in w.items()}
    made = kw.compile(loss)(there, torch.from_numpy(x), torch.from_numpy(y))
    assert isinstance(made, CudaArray)
    alike(kw.compile(loss)(w, x, y), made)
    with pytest.raises(DTypeError, match="needs a gradient"):
        kw.compile(lambda a: a * 2)(torch.ones(3, requires_grad=True))


def test_gradients_are_those_of_the_cpu() -> None:
    given = problem()
    alike(kw.grad(loss)(*given), kw.grad(loss)(*map(on_gpu, given)))
    here, there = kw.value_and_grad(loss)(*given), kw.value_and_grad(loss)(*map(on_gpu, given))
    alike(here, there)
    both = kw.compile(kw.value_and_grad(loss))
    alike(here, both(*map(on_gpu, given)))


def test_gradients_are_checked_there() -> None:
    x, w = some(3, 4, dtype="float64"), some(4, 2, dtype="float64")
    kw.check_grads(lambda x, w: kw.sigmoid(x @ w) * 2.0, *map(on_gpu, (x, w)), order=2)


def test_arrays_that_a_gradient_uses_from_outside_may_be_on_either_side() -> None:
    x, mask, scale = some(5), some(5), some(5)
    here = kw.grad(lambda x: (x * x * mask * scale).sum())(x)
    there = on_gpu(scale)
    for _ in range(2):
        alike(here, kw.grad(lambda x: (x * x * mask * there).sum())(on_gpu(x)))


def test_numbers_tables_and_new_arrays_become_constants_of_the_plan() -> None:
    table, bias = some(3, 4), kw.array(some(4))

    def f(x: Any) -> Any:
        steps = kw.arange(4, dtype="float32") + kw.zeros(4) + kw.full((4,), 2.0)
        return x @ table * 2.0 + bias + steps + np.float32(3) + kw.eye(4)[1] + kw.ones_like(bias)

    compiled, x = kw.compile(f), some(2, 3)
    expected = f(kw.array(x))
    alike(expected, compiled(on_gpu(x)))
    (copied,) = [n for n in compiled.graph.nodes if n.op.name == "constant" and n.specs[0].shape == (3, 4)]
    assert copied.specs[0].device == "cuda:0"
    # Only what depends on x is computed there; the rest was put together when the plan was made.
    assert len(compiled.plan.calls) <= 2
    x_and_more = {v for node in compiled.graph.steps for v in node.inputs} & set(compiled.graph.inputs)
    assert x_and_more
    assert compiled.plan.constant_bytes >= table.nbytes


def test_what_is_repeated_stays_small() -> None:
    wide = kw.broadcast_to(kw.array(some(1, 3)), (1000, 3))
    f = kw.compile(lambda x: kw.cumsum(x * 0.0 + wide, axis=0))
    f(on_gpu(some(1000, 3)))
    assert f.plan.constant_bytes < 1000


def test_an_array_on_the_gpu_from_outside_is_a_constant_as_it_was() -> None:
    w = on_gpu(some(3, 3))
    before = numbers(w).copy()
    f = kw.compile(lambda x: x @ w)
    x = on_gpu(some(2, 3))
    first = numbers(f(x)).copy()
    w._tensor.zero_()
    np.testing.assert_array_equal(numbers(f(x)), first)
    np.testing.assert_allclose(first, numbers(x) @ before, rtol=1e-5)


def test_several_devices_in_one_call_are_refused_with_what_to_write() -> None:
    f = kw.compile(lambda a, b: a["w"] + b)
    x = on_gpu(some(3))
    with pytest.raises(DeviceError, match=r"arg1 is on the CPU and arg0\['w'\] .*kw.array\(arg1, dev"):
        f({"w": x}, some(3))
    with pytest.raises(DeviceError, match=r"arg1 is on 'cuda:1' and arg0\['w'\] on 'cuda:0'"):
        f({"w": x}, kw.array(some(3), device="cuda:1"))
    with pytest.raises(DeviceError, match="its arguments are on 'cpu'"):
        kw.compile(lambda a: a + x)(some(3))
    other = kw.array(some(3), device="cuda:1")
    with pytest.raises(DeviceError, match="uses an Array on 'cuda:1'"):
        kw.compile(lambda a: a + other)(x)
    with pytest.raises(DeviceError, match="on several devices"):
        x + other


def test_a_number_may_stand_on_the_cpu() -> None:
    f = kw.compile(lambda x, lr: x * lr)
    x = some(3)
    alike(kw.array(x * np.float32(0.5)), f(on_gpu(x), np.asarray(0.5, "float32")))
    alike(kw.array(x * np.float32(0.5)), on_gpu(x) * np.asarray(0.5, "float32"))
    alike(kw.array(x * np.float32(0.5)), on_gpu(x) * kw.array(np.float32(0.5)))


def test_values_are_asked_for_in_vain_while_tracing() -> None:
    with pytest.raises(TraceError, match="has no numbers yet"):
        kw.compile(lambda x: x if x.sum() > 0 else -x)(on_gpu(some(3)))


def test_plans_on_two_devices_are_two_plans() -> None:
    f = kw.compile(lambda x: kw.exp(x) + 1.0)
    x = some(4)
    first, second = f(kw.array(x, device="cuda:0")), f(kw.array(x, device="cuda:1"))
    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    np.testing.assert_array_equal(numbers(first), numbers(second))
    assert f.traces == 2


def test_a_call_like_the_last_one_takes_nothing_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.engine import compile as compiling

    f = kw.compile(lambda w, x, y: ([p - 0.1 * x.sum() for p in w], y * 2.0), donate=0)
    w = [on_gpu(some(3)), on_gpu(some(4))]
    w, _ = f(w, on_gpu(some(5)), on_gpu(some(2)))

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(compiling.tree, "flatten", never)
    x, y = some(5), some(2)
    for batch in (
        (on_gpu_unasked(x), on_gpu_unasked(y)),
        (torch.from_numpy(x), torch.from_numpy(y)),
        (on_gpu_unasked(x), torch.from_numpy(y)),
    ):
        before = [numbers(p).copy() for p in w]
        w, doubled = f(w, *batch)
        for p, b in zip(w, before, strict=True):
            np.testing.assert_allclose(numbers(p), b - np.float32(0.1) * x.sum(), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(numbers(doubled), y * 2)
    for odd in ((on_gpu_unasked(x[:4]), y), (x, on_gpu_unasked(y)), (None, torch.from_numpy(y))):
        with pytest.raises(AssertionError):
            f(w, *odd)
    with pytest.raises(AssertionError):
        f([w[0], torch.from_numpy(some(4))], *batch)


def on_gpu_unasked(x: Any) -> CudaArray:
    """An Array on the GPU whose spec nobody knows yet."""
    return CudaArray(torch.from_numpy(x.copy()))


# --- donation -----------------------------------------------------------------------------------------------


def test_donated_memory_holds_the_result_and_the_argument_is_gone() -> None:
    f = kw.compile(lambda p, g: p - 0.1 * g, donate=0)
    p, g = on_gpu(some(4)), on_gpu(some(4))
    at, expected = p._tensor.data_ptr(), numbers(p) - np.float32(0.1) * numbers(g)
    made = f(p, g)
    assert made._tensor.data_ptr() == at
    np.testing.assert_allclose(numbers(made), expected, rtol=1e-6)
    for use in (lambda: p + 1, lambda: p.item(), lambda: f(p, g), lambda: kw.array(p), lambda: p.shape):
        with pytest.raises(DonatedError, match="donated"):
            use()
    assert repr(p) == "Array(donated)"


@pytest.mark.parametrize("after", [0, 2])
def test_memory_that_others_see_is_not_donated(after: int) -> None:
    f = kw.compile(lambda p, g: [a + b for a, b in zip(p, g, strict=True)], donate=0)
    for _ in range(after):
        f([on_gpu(some(4)), on_gpu(some(4))], [on_gpu(some(4)), on_gpu(some(4))])
    x, y = on_gpu(some(8)), on_gpu(some(4))
    with pytest.raises(DonatedError, match="shares memory"):
        f([x[:4], y], [x[2:6], y.copy()])
    with pytest.raises(DonatedError, match="shares memory"):
        f([x[:4], x[2:6]], [y, y.copy()])
    with pytest.raises(DonatedError, match=r"leaf 0 .* is donated and no Array on a GPU but a Tensor"):
        f([torch.zeros(4), y], [y.copy(), y.copy()])
    f([x[:4], x[4:]], [y, y])


def test_a_call_that_fails_gives_donated_arrays_back(gpu: StandIn) -> None:
    f = kw.compile(lambda p: kw.cumsum(p + 1, axis=0), donate=0)
    p = on_gpu(some(4))
    gpu.failing["cumsum"] = RuntimeError("no")
    with pytest.raises(RuntimeError):
        f(p)
    assert p.shape == (4,)


# --- eager calls --------------------------------------------------------------------------------------------


def test_a_number_is_copied_once() -> None:
    x = on_gpu(some(3))
    assert numbers(x * 2.5).tolist() == (numbers(x) * np.float32(2.5)).tolist()
    kept = next(iter(dict(scalars._kept).values()))
    count = len(kept)
    for _ in range(5):
        x * 2.5, 2.5 * x
    assert len(kept) == count
    assert numbers(x * 0.0 + -0.0).tolist() == [0.0] * 3
    assert (1 / (on_gpu(np.zeros(1, "float32")) * -1.0)).item() == -np.inf


def test_operators_methods_and_indices_work_as_on_the_cpu() -> None:
    x = some(3, 4)
    a, there = kw.array(x), on_gpu(x)
    for f in (
        lambda a: a + 1,
        lambda a: 2.0 - a / 3,
        lambda a: (a > 0) & (a < 1),
        lambda a: -a @ a.T,
        lambda a: a.sum(axis=0).max(),
        lambda a: a.argmax(axis=1),
        lambda a: a.astype("float64").mean(),
        lambda a: a[1:, ::2],
        lambda a: a[[2, 0]],
        lambda a: a[np.array([2, 0]), 1],
        lambda a: a[:, -1],
        lambda a: a[::-1, ::-2] + 1,
        lambda a: a[np.array([True, False, True])],
        lambda a: kw.take(a, [1, 1, -1], axis=1),
        lambda a: a.reshape(2, 6).T.flatten(),
        lambda a: kw.where(a > 0, a, 0.0),
        lambda a: kw.concat([a, kw.zeros_like(a), kw.full_like(a, 3)]),
        lambda a: kw.softmax(a, axis=1),
        lambda a: kw.clip(a, -0.5, 0.5),
        lambda a: a**2,
        lambda a: abs(a),
    ):
        np.testing.assert_allclose(numbers(f(there)), numbers(f(a)), rtol=1e-5, err_msg=str(f(a)))
    view = there[1:, ::2]
    assert view._tensor.data_ptr() == there._tensor[1:].data_ptr()
    assert bool(on_gpu(np.ones(1))) is True
    assert [row.shape for row in there] == [(4,)] * 3


def test_arrays_are_made_and_moved_by_name_of_the_device() -> None:
    for made in (
        kw.zeros(2, 3, device="cuda"),
        kw.ones((2, 3), device="cuda:0"),
        kw.full((2, 3), 1.5, device="cuda:0"),
        kw.arange(6, device="cuda:0"),
        kw.linspace(0, 1, 6, device="cuda:0"),
        kw.eye(3, device="cuda:0"),
        kw.random.key(0, device="cuda:0"),
        kw.random.normal(kw.random.key(0, device="cuda:0"), (2, 3)),
        kw.array([[1, 2]], "float32", "cuda:0"),
        kw.array(on_gpu(some(3)), "float64"),
    ):
        assert made.device == "cuda:0"
        assert made.to("cuda:0") is made
        assert made.to("cuda:1").device == "cuda:1"
        np.testing.assert_array_equal(numbers(made.to("cuda:1")), numbers(made.to("cpu")))
    key = kw.random.key(3)
    drawn = [numbers(kw.random.bits(each, (5,))) for each in (key, on_gpu(key))]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(DeviceError, match="torch sees 2 CUDA devices"):
        kw.zeros(3, device="cuda:2")


def test_a_device_named_in_a_traced_function_costs_nothing() -> None:
    f = kw.compile(lambda x: x + kw.zeros(3, device="cuda:0") + kw.ones(3, device="cuda"))
    x = some(3)
    alike(kw.array(x + 1), f(on_gpu(x)))


def test_an_optimizer_keeps_its_state_with_the_parameters() -> None:
    optimizer = kw.optim.adam(1e-2)
    w, x, y = problem()

    def step(w: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = kw.value_and_grad(loss)(w, x, y)
        return *optimizer.update(w, grads, state), value

    f, w = kw.compile(step, donate=(0, 1)), kw.to_device(w, "cpu")
    here, state = kw.to_device({k: v.copy() for k, v in w.items()}, "cpu"), optimizer.init(w)
    there, moved = on_gpu(w), optimizer.init(on_gpu(w))
    for _ in range(5):
        here, state, value = f(here, state, x, y)
        there, moved, other = f(there, moved, on_gpu(x), on_gpu(y))
        alike(value, other)
    alike((here, state), (there, moved), rtol=1e-4)
    assert optimizer.with_lr(moved, 0.5)["lr"].device == "cuda:0"


def test_a_model_keeps_its_device_when_it_is_loaded() -> None:
    model = kw.nn.Linear(3, 2, key=0)
    state = kw.nn.state_dict(model)
    there = kw.nn.load_state(on_gpu(kw.nn.Linear(3, 2, key=1)), state)
    back = kw.nn.load_state(kw.nn.Linear(3, 2, key=2), kw.nn.state_dict(there))
    assert {x.device for x in kw.nn.state_dict(there).values()} == {"cuda:0"}
    assert {x.device for x in kw.nn.state_dict(back).values()} == {"cpu"}
    alike(back, there)
    assert "f32[2,3]" in repr(there)


def test_an_op_without_a_kernel_stops_the_plan_with_its_line_and_the_reasons() -> None:
    with (
        numpy_kernels(over_real=True, without=("cumsum",)),
        pytest.raises(
            NoKernelError,
            match=r"(?s)test_gpu_functions.py:\d+: no CUDA kernel supports cumsum.*no kernel of cumsum",
        ),
    ):
        kw.compile(lambda x: kw.cumsum(x * 2, axis=0))(on_gpu(some(3)))
