"""PyTorch's own samples: what its tests call `linear`, `matmul`, convolutions and recurrent modules with.

Every sample of torch's OpInfo and ModuleInfo databases is computed by our public functions and compared with
torch, forward and backward, within the tolerances of `torch.testing.assert_close`. Each ends as a pass, a
failure or a refusal: an explained error of ours for a call that we do not have. `pytest -s` shows the table.

Gradients are formed by our own ops: matmuls of transposed views, `conv_input_grad`, `conv_weight_grad`,
`conv_bias_grad`, `lstm_grad` and so on; sums over broadcast axes by NumPy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from kernelwright.engine import functional
from kernelwright.engine.eager import call, call_all
from kernelwright.engine.functional import conv as conv_functions
from kernelwright.kernels.errors import KernelwrightError
from kernelwright.kernels.op import get_op

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
pytest.importorskip("expecttest", reason="torch's sample databases need it: pip install 'kernelwright[dev]'")

Arrays = tuple[np.ndarray, ...]
DTYPES = ("float32", "float64")
MATRICES = ("linear", "matmul", "bmm", "addmm")
CONVS = tuple(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3))
MODULES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
STATES = {"lstm": 2, "gru": 1, "rnn": 1}
# What we have no call for, by words of the refusal: nothing.
KNOWN_REFUSALS: dict[str, str] = {}


@dataclass
class Outcome:
    """What became of an op's samples."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


class Refusal(Exception):
    """We have no call for this."""


@cache
def _op_infos() -> dict[str, Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    names = {name: f"nn.functional.{name}" for name in ("linear", *CONVS)}
    names |= {name: name for name in ("matmul", "bmm", "addmm")}
    known = {info.name: info for info in op_db if not info.variant_test_name}
    return {ours: known[theirs] for ours, theirs in names.items()}


@cache
def _module_infos() -> dict[str, Any]:
    from torch.testing._internal.common_modules import module_db

    return {info.module_cls.__name__: info for info in module_db if info.module_cls.__name__ in MODULES}


def array(tensor: Any) -> np.ndarray:
    """The tensor's memory, strides and all."""
    found: np.ndarray = tensor.detach().numpy()
    return found


def summed_to(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A gradient summed over the axes along which its operand was broadcast."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, (have, want) in enumerate(zip(gradient.shape, shape, strict=True)) if have != want)
    return np.asarray(gradient.sum(axis=axes, keepdims=True))


def compare(ours: np.ndarray, theirs: Any, exact: Any) -> None:
    """Ours is close to torch's; or to the exact result, within twice torch's distance and a rounding."""
    mine, their, right = torch.from_numpy(np.array(ours)), theirs.detach(), exact.detach()
    try:
        torch.testing.assert_close(mine, their, check_stride=False)
    except AssertionError:
        if mine.shape != their.shape:
            raise
        off, allowed = (mine - right).norm(), 2 * (their - right).norm()
        if not off <= allowed + torch.finfo(mine.dtype).eps / 2 * right.norm():
            raise


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(functional.get("matmul")(a, b))


def product_gradients(a: np.ndarray, b: np.ndarray, dy: np.ndarray) -> Arrays:
    """Those of a and b in `a @ b`."""
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    if a.ndim == 1:
        dy = np.expand_dims(dy, -2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        dy = np.expand_dims(dy, -1)
    da = summed_to(product(dy, right.swapaxes(-1, -2)), left.shape)
    db = summed_to(product(left.swapaxes(-1, -2), dy), right.shape)
    return da.reshape(a.shape), db.reshape(b.shape)


def matrices(
    name: str, arrays: list[Any], options: dict[str, Any]
) -> tuple[Arrays, Callable[[Arrays], Arrays]]:
    """The result, and a function from its gradient to those of the inputs."""
    if name == "linear":
        x, w, *rest = arrays
        b = rest[0] if rest else options.get("bias")
        y = np.asarray(functional.get("linear")(x, w, b))

        def linear_gradients(dys: Arrays) -> Arrays:
            (dy,) = dys
            dx, dwt = product_gradients(x, w.T, dy) if w.ndim == 2 else product_gradients(x, w, dy)
            # [1, rows, out]: one image in NHWC.
            db = () if b is None else (np.asarray(_op("conv_bias_grad", [_rows(dy, b)], {"layout": "NHWC"})),)
            return (dx, dwt.T, *(part.reshape(b.shape) for part in db))

        return (y,), linear_gradients
    if name == "addmm":
        added, a, b = arrays
        alpha, beta = options.get("alpha", 1), options.get("beta", 1)
        y = np.asarray(beta * added + alpha * product(a, b), a.dtype)

        def addmm_gradients(dys: Arrays) -> Arrays:
            (dy,) = dys
            da, db = product_gradients(a, b, np.asarray(alpha * dy, a.dtype))
            return (summed_to(np.asarray(beta * dy, a.dtype), added.shape), da, db)

        return (y,), addmm_gradients
    a, b = arrays
    return (product(a, b),), lambda dys: product_gradients(a, b, dys[0])


def _rows(dy: np.ndarray, b: np.ndarray) -> np.ndarray:
    return dy.reshape(1, -1, b.size)


def _op(name: str, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    return call(get_op(name), inputs, attrs)


def convolution(
    name: str, arrays: list[Any], options: dict[str, Any]
) -> tuple[Arrays, Callable[[Arrays], Arrays]]:
    """The result, and a function from its gradient to those of the inputs."""
    axes, transposed = int(name[-2]), "transpose" in name
    x, w, *rest = arrays
    b = rest[0] if rest else options.get("bias")
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    if not transposed:
        names = ("stride", "padding", "dilation", "groups")
    given = dict(zip(names, rest[1:], strict=False)) | {k: v for k, v in options.items() if k != "bias"}
    single = x.ndim == axes + 1
    images = x[None] if single else x
    y = np.asarray(functional.get(name)(images, w, b, **given))
    prepare = conv_functions._transposed if transposed else conv_functions._prepare
    _, _, attrs = prepare(axes, images, w, b, **given)
    window = {
        key: attrs[key] for key in ("stride", "padding", "dilation", "groups", "layout") if key in attrs
    }

    def gradients(dys: Arrays) -> Arrays:
        dy = dys[0][None] if single else dys[0]
        if transposed:
            dx = _op("conv", [dy, w, None, None], window)
            dw = _op("conv_weight_grad", [dy, images], {"kernel_size": w.shape[2:], **window})
        else:
            dx = _op("conv_input_grad", [dy, w, None], {"input_size": images.shape[2:], **window})
            dw = _op("conv_weight_grad", [images, dy], {"kernel_size": w.shape[2:], **window})
        db = () if b is None else (np.asarray(_op("conv_bias_grad", [dy], {})),)
        return (np.asarray(dx)[0] if single else np.asarray(dx), np.asarray(dw), *db)

    return (y[0] if single else y,), gradients


def op_samples(name: str, dtype: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each sample of an op: what it is called with, and a check of it."""
    info = _op_infos()[name]
    compute = convolution if name in CONVS else matrices
    for number, sample in enumerate(info.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True)):
        given = [sample.input, *sample.args]
        options = {k: array(v) if torch.is_tensor(v) else v for k, v in sample.kwargs.items()}
        shapes = [tuple(g.shape) if torch.is_tensor(g) else g for g in given]

        def check(sample: Any = sample, given: list[Any] = given, options: dict[str, Any] = options) -> None:
            arrays = [array(g) if torch.is_tensor(g) else g for g in given]
            (y,), gradients = compute(name, arrays, options)
            tensors = [t for t in (*given, *sample.kwargs.values()) if torch.is_tensor(t)]
            wanted = [t for t in tensors if t.requires_grad]
            # The same in float64, for where torch's own sums in float32 are off.
            wide = {id(t): t.detach().double().requires_grad_(t.requires_grad) for t in tensors}
            precise = info.op(
                *(wide.get(id(g), g) for g in given),
                **{k: wide.get(id(v), v) for k, v in sample.kwargs.items()},
            )
            theirs = info.op(sample.input, *sample.args, **sample.kwargs)
            compare(y, theirs, precise)
            if not wanted:
                return
            dy = torch.randn_like(theirs.detach())
            found = torch.autograd.grad(theirs, wanted, dy, allow_unused=True)
            exact = torch.autograd.grad(
                precise, [wide[id(t)] for t in wanted], dy.double(), allow_unused=True
            )
            ours = dict(zip(map(id, tensors), gradients((array(dy),)), strict=True))
            for t, their, right in zip(wanted, found, exact, strict=True):
                if their is not None:
                    compare(ours[id(t)], their, right)

        yield f"{name} {number} {shapes} {sample.kwargs}", check


class Layers:
    """A torch.nn.LSTM, GRU or RNN by our layers: one call for each layer and direction, forward and back.

    Args:
        kind: "lstm", "gru" or "rnn".
        module: torch's.
    """

    def __init__(self, kind: str, module: Any):
        self.kind, self.module = kind, module
        self.op = "lstmp" if getattr(module, "proj_size", 0) else kind
        self.own = {"nonlinearity": module.nonlinearity} if kind == "rnn" else {}
        self.tape: list[list[tuple[Any, ...]]] = []

    def weights(self, layer: int, back: int) -> list[Any]:
        names = ["weight_ih", "weight_hh", *(["weight_hr"] if self.op == "lstmp" else [])]
        names += ["bias_ih", "bias_hh"]
        found = [getattr(self.module, f"{name}_l{layer}{'_reverse' if back else ''}", None) for name in names]
        return [w if w is None else array(w) for w in found]

    def forward(self, x: np.ndarray, states: list[np.ndarray | None]) -> tuple[np.ndarray, Arrays]:
        """x: [T, B, I] and states [layers * directions, B, H] -> y and the last states."""
        op, last = get_op(self.op), []
        ways = 2 if self.module.bidirectional else 1
        for layer in range(self.module.num_layers):
            ys, steps = [], []
            for back in range(ways):
                place = layer * ways + back
                first = [None if s is None else s[place] for s in states]
                inputs = (x, *first, *self.weights(layer, back), None, None)
                attrs = {**self.own, "reverse": bool(back)}
                self._public(inputs, attrs)
                train = {"train": True} if self.kind != "rnn" else {}
                outputs = [np.asarray(out) for out in call_all(op, inputs, {**attrs, **train})]
                ys.append(outputs[0])
                last.append(outputs[1 : 1 + len(states)])
                steps.append((inputs, attrs, outputs))
            self.tape.append(steps)
            x = np.concatenate(ys, axis=-1)
        return x, tuple(np.stack(parts) for parts in zip(*last, strict=True))

    def _public(self, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        """kw.lstm and its like must give the bits of the op that also keeps what the gradient needs."""
        x, *first = inputs[: 1 + STATES[self.kind]]
        state = tuple(first) if self.kind == "lstm" and first[0] is not None else first[0]
        rest = list(inputs[1 + STATES[self.kind] :])
        more = {"w_hr": rest.pop(2)} if self.op == "lstmp" else {}
        y, _ = functional.get(self.kind)(x, state, *rest, **more, **attrs)
        assert np.asarray(y).shape[:2] == x.shape[:2]

    def backward(self, dy: np.ndarray, dlast: Arrays) -> tuple[np.ndarray, list[Any]]:
        """The gradients of x, and of the weights in the order of the module's parameters."""
        grad, weights = get_op(f"{self.op}_grad"), 3 if self.op == "lstmp" else 2
        count, found = STATES[self.kind], []
        ways = 2 if self.module.bidirectional else 1
        for layer in reversed(range(self.module.num_layers)):
            width = dy.shape[-1] // ways
            dx: Any = 0.0
            ours = []
            for back in range(ways):
                inputs, attrs, outputs = self.tape[layer][back]
                part = np.ascontiguousarray(dy[..., back * width : (back + 1) * width])
                states = [d[layer * ways + back] for d in dlast]
                saved = (outputs[0], *outputs[1 + count :])
                results = call_all(
                    grad, (*inputs[: 1 + count + weights], *saved, part, *states, None, None), attrs
                )
                dx = dx + np.asarray(results[0])
                dws, dbs = results[1 + count : 1 + count + weights], results[1 + count + weights :]
                # In the order of torch's parameters: w_hr behind the biases.
                ordered = (*dws[:2], *(dbs if self.module.bias else ()), *dws[2:])
                ours.append([np.asarray(d) for d in ordered])
            found = [*(g for way in ours for g in way), *found]
            dy = dx
        return dy, found


def module_samples(name: str, dtype: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each input of a module, as `op_samples`."""
    info, kind = _module_infos()[name], name.removesuffix("Cell").lower()
    torch.manual_seed(0)
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=getattr(torch, dtype), requires_grad=True, training=True
    )
    for number, sample in enumerate(inputs):
        args, options = sample.constructor_input.args, sample.constructor_input.kwargs

        def check(sample: Any = sample, args: Any = args, options: Any = options) -> None:
            module = info.module_cls(*args, **options).to(getattr(torch, dtype))
            (_check_cell if name.endswith("Cell") else _check_layers)(kind, module, sample.forward_input)

        yield f"{name} {number} {args} {options}", check


def _flat(states: Any) -> list[Any]:
    return [] if states is None else list(states) if isinstance(states, tuple | list) else [states]


def _check_cell(kind: str, module: Any, given: Any) -> None:
    x, *rest = given.args
    states = _flat(rest[0] if rest else given.kwargs.get("hx"))
    theirs = _flat(module(x, *rest, **given.kwargs))
    single = x.ndim == 1
    parts = [array(part)[None] if single else array(part) for part in (x, *states)]
    weights = [array(w) for w in module.parameters()]
    state: Any = None
    if states:
        state = tuple(parts[1:]) if kind == "lstm" else parts[1]
    own = {"nonlinearity": module.nonlinearity} if kind == "rnn" else {}
    ours = _flat(functional.get(f"{kind}_cell")(parts[0], state, *weights, **own))
    for mine, their in zip(ours, theirs, strict=True):
        found = torch.from_numpy(np.asarray(mine))
        torch.testing.assert_close(found[0] if single else found, their.detach(), check_stride=False)


def _check_layers(kind: str, module: Any, given: Any) -> None:
    x, *rest = given.args
    if not torch.is_tensor(x):
        raise Refusal("a packed sequence is torch's own: give lengths")
    states = _flat(rest[0] if rest else None)
    y, last = module(x, *rest)
    single, time = x.ndim == 2, 1 if module.batch_first and x.ndim == 3 else 0
    outputs = [y, *_flat(last)]

    def batched(part: np.ndarray, axis: int = 1) -> np.ndarray:
        return np.expand_dims(part, axis) if single else part

    sequences = batched(array(x)).swapaxes(0, time)
    layers = Layers(kind, module)
    first: list[Any] = [batched(array(s)) for s in states] or [None] * STATES[kind]
    ours_y, ours_last = layers.forward(sequences, first)
    for mine, their, axis in zip((ours_y, *ours_last), outputs, (time, 0, 0), strict=False):
        expected = batched(array(their)).swapaxes(0, axis)
        torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(expected.copy()))
    grads = [torch.randn_like(out) for out in outputs]
    variables = [x, *module.parameters()]
    theirs = torch.autograd.grad(outputs, variables, grads)
    dy, *dlast = (batched(array(g)) for g in grads)
    dx, found = layers.backward(np.ascontiguousarray(dy.swapaxes(0, time)), tuple(dlast))
    expected = [batched(array(theirs[0])).swapaxes(0, time), *map(array, theirs[1:])]
    for mine, their in zip([dx, *found], expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(their.copy()))


TABLE: dict[tuple[str, str], Outcome] = {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*MATRICES, *CONVS, *MODULES])
def test_torchs_own_samples_pass_or_are_refused_with_a_reason(name: str, dtype: str) -> None:
    torch.manual_seed(0)
    outcome = TABLE[name, dtype] = Outcome()
    for words, check in (module_samples if name in MODULES else op_samples)(name, dtype):
        try:
            check()
        except (Refusal, KernelwrightError) as error:
            outcome.refused[str(error).splitlines()[0]] += 1
        except AssertionError as error:
            outcome.failed.append(f"{words}: {error}")
        else:
            outcome.passed += 1
    refused = "".join(f"; {n} refused: {why}" for why, n in outcome.refused.items())
    print(f"\n{name:18} {dtype}: {outcome.passed} passed, {len(outcome.failed)} failed{refused}")
    assert not outcome.failed, "\n\n".join(outcome.failed[:3])
    assert outcome.passed > 0
    known = KNOWN_REFUSALS.get(name)
    assert [why for why in outcome.refused if known is None or known not in why] == []
