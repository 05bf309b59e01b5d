"""Whole networks as other libraries run them: training steps and inference, each as a function without
arguments.

What an expert writes: gradients set to None, fused optimizers, inference mode, frozen weights, outputs bound
once. Whatever compiles does so before anything is timed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..timing import Call as Timed
from ..timing import Lane, closure_loop
from .networks import Network
from .networks.network import Batch

Call = Callable[[], Any]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch with so many threads; what it compiles inside belongs to that number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch._dynamo.reset()


def torch_model(network: Network, seed: int = 0) -> Any:
    """The network as torch has it, its parameters drawn from a seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network.theirs()


def torch_step(
    network: Network,
    batch: Batch,
    lr: float,
    compiled: bool = False,
    dtype: Any = None,
    device: str = "cpu",
    mode: str = "default",
) -> Callable[[], Any]:
    """One training step: forward, backward and update; returns the loss as a tensor.

    Args:
        network, batch, lr: of the step.
        compiled: by torch.compile in that `mode`, forward and backward; the optimizer is the fused one.
        dtype: everything in it, for a comparison; else parameters are float32, and the network's precision is
            had by autocast.
        device: where; images lie channels-last on a GPU.
        mode: see above.
    """
    import torch

    model = torch_model(network).to(device)
    x, y = (torch.from_numpy(part).to(device) for part in batch)
    if device != "cpu" and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    low = None if dtype is not None or network.precision is None else getattr(torch, network.precision)
    kind = torch.device(device).type
    if dtype is not None:
        model, x = model.to(dtype), x.to(dtype) if x.is_floating_point() else x
    optimizer = network.their_optimizer(model.parameters(), lr, fused=True)

    def loss_of(x: Any, y: Any) -> Any:
        if low is None:
            return torch.nn.functional.cross_entropy(model(x), y)
        with torch.autocast(kind, low):
            out = model(x)
        return torch.nn.functional.cross_entropy(out.float(), y)

    loss_fn = torch.compile(loss_of, mode=mode) if compiled else loss_of

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_inference(network: Network, x: np.ndarray[Any, Any], compiled: bool = False) -> Call:
    """The model's outputs, in inference mode."""
    import torch

    model, given = torch_model(network).eval(), torch.from_numpy(x)
    run: Any = model
    if compiled:
        import torch._inductor.config as config

        with config.patch(freezing=True), torch.no_grad():
            run = torch.compile(model)
            run(given)

    def call() -> Any:
        with torch.inference_mode(not compiled), torch.no_grad():
            return run(given)

    return call


def onnx_inference(network: Network, x: np.ndarray[Any, Any], threads: int) -> Call:
    """The model exported to ONNX, in ONNX Runtime with bound arrays."""
    import onnxruntime
    import torch

    model, given = torch_model(network).eval(), torch.from_numpy(x)
    file: Any = io.BytesIO()
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no op for it
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (given,), file, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"]
            )
            shape = tuple(model(given).shape)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    binding, y = session.io_binding(), np.empty(shape, np.float32)
    binding.bind_input("x", "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, y.dtype.type, y.shape, y.ctypes.data)

    def call(held: Any = (x, y)) -> Any:
        session.run_with_iobinding(binding)
        return held[1]

    return call


def missing() -> str | None:
    """What to install for these rivals; None when all are there."""
    lacking = [name for name in ("torch", "onnx", "onnxruntime") if find_spec(name) is None]
    return f"{', '.join(lacking)}: pip install 'kernelwright[torch,onnx]'" if lacking else None


def lane(name: str, call: Call) -> Lane:
    """A contestant that makes one call over and over."""
    return Lane(name, closure_loop, [Timed((call,))], read=arrays_of)


def arrays_of(result: Any) -> tuple[np.ndarray[Any, Any], ...]:
    """What a call returned, as NumPy arrays."""
    return (np.asarray(result.detach() if hasattr(result, "detach") else result),)
