"""Random calls of the recurrent ops, run and judged, and the same calls in torch."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernelwright as kw
from kernelwright.kernels.accuracy import Verdict, check_kernel
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import ABSENT, AnyArray, Sample, TensorSpec, get_op
from kernelwright.kernels.recurrent import reference, samples
from kernelwright.kernels.registry import kernels_for

KINDS = ("lstm", "lstmp", "gru", "rnn")
CELLS = ("lstm", "gru", "rnn")
STATES = {"lstm": 2, "lstmp": 2, "gru": 1, "rnn": 1}
# Of inputs; "bfloat16": the weights, beside float32.
DTYPES = ("float32", "float64", "bfloat16")


def kernels_of(op: str) -> tuple[Kernel, ...]:
    """The built-in kernels of an op."""
    return tuple(k for k in kernels_for(op) if "/cpu_numba" in k.id)


def why_not(kernel: Kernel, sample: Sample) -> str | None:
    """The reason why a kernel refuses a sample."""
    op = get_op(kernel.op)
    specs = tuple(TensorSpec.of(array) for array in sample.inputs)
    attrs = op.complete(sample.attrs)
    return kernel.why_not((*specs, *op.infer(specs, **attrs)), attrs)


def strided(rng: np.random.Generator, x: AnyArray) -> AnyArray:
    """The same numbers in another layout."""
    way = rng.integers(5)
    if way == 0:
        return np.asfortranarray(x)
    if way == 1:
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if way == 2:
        return np.ascontiguousarray(x[::-1])[::-1]
    return x


def random_sample(op: str, seed: int, dtype: str = "float32") -> Sample:
    """One random call of a dtype of DTYPES: sizes, lengths, direction, layouts, and what is left out."""
    rng = np.random.default_rng(seed)
    kind, _, what = op.partition("_")
    narrow, dtype = dtype == "bfloat16", "float32" if dtype == "bfloat16" else dtype
    t, b = int(rng.integers(1, 9)), int(rng.integers(1, 15))
    i, h = (int(rng.choice([rng.integers(1, 9), rng.integers(1, 40), rng.integers(1, 90)])) for _ in range(2))
    p = int(rng.choice([rng.integers(1, 9), rng.integers(1, h + 1), 90])) if kind == "lstmp" else 0
    made = samples.contents(kind, rng, 1 if what == "cell" else t, b, i, h, dtype, p)
    if narrow:
        made = samples._halved(made)
    lengths = rng.integers(0, t + 1, b).astype(np.int64) if rng.integers(2) else None
    attrs: dict[str, Any] = {}
    if kind == "gru":
        attrs["reset_after"] = bool(rng.integers(4))
    if kind == "rnn":
        attrs["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    optional = [name for name in ("h0", "c0", "b_ih", "b_hh") if name in made and rng.integers(4) == 0]
    if what == "cell":
        made["x"] = made["x"][0]
        # Half of them in no odd layout: a kernel that refuses those gets its share.
        plain = bool(rng.integers(2))
        inputs = [None if n in optional else a if plain else strided(rng, a) for n, a in made.items()]
        return Sample(f"seed {seed}", tuple(inputs), attrs)
    attrs |= {"reverse": bool(rng.integers(2)), "batch_first": bool(rng.integers(4) == 0)}
    if attrs["batch_first"]:
        made["x"] = np.ascontiguousarray(made["x"].swapaxes(0, 1))
    if kind != "rnn" and what == "":
        attrs["train"] = bool(rng.integers(2))
    inputs = [*(None if n in optional else strided(rng, a) for n, a in made.items()), lengths, None]
    sample = Sample(f"seed {seed}", tuple(inputs), attrs)
    if what == "":
        return sample
    without = tuple(n for n in ("dy", "dh_n", "dc_n") if rng.integers(5) == 0)
    call, attrs = samples._gradient_call(kind, rng, sample, dtype, without)
    # A gradient often comes with a stride of 0, from a sum.
    place = get_op(op).inputs.index("dy")
    dy = call[place]
    if dy is not None and rng.integers(3) == 0:
        call = (*call[:place], np.broadcast_to(dy[:1, :1, :1], dy.shape), *call[place + 1 :])
    return Sample(f"seed {seed}", call, attrs)


def judged(kernel: Kernel, sample: Sample, threads: int = 1) -> Verdict | None:
    """The verdict on a kernel's result, or None when it refuses the call."""
    return None if why_not(kernel, sample) else check_kernel(kernel, sample, threads=threads)


def specs_of(arrays: Any) -> tuple[TensorSpec, ...]:
    """Specs of arrays and of None."""
    return tuple(ABSENT if a is None else TensorSpec.of(a) for a in arrays)


# torch's names of the weights. It projects to fewer units than there are: `made` must, too.
NAMES = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "w_hr": "weight_hr",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
}


def torch_layer(
    kind: str, made: dict[str, AnyArray], attrs: dict[str, Any], dtype: str, back: bool = False
) -> Any:
    """torch's layer with these weights, also for the way back; `nonlinearity` from the attributes."""
    import torch

    i, h = made["w_ih"].shape[1], len(made["w_hh"]) // samples._GATES[kind]
    more: dict[str, Any] = {"nonlinearity": attrs["nonlinearity"]} if kind == "rnn" else {}
    if kind == "lstmp":
        more["proj_size"] = len(made["w_hr"])
    name = kind.removesuffix("p").upper()
    layer = getattr(torch.nn, name)(i, h, dtype=getattr(torch, dtype), bidirectional=back, **more)
    with torch.no_grad():
        for ours, theirs in NAMES.items():
            for way in ("", "_reverse") if back else ("",):
                if ours in made:
                    getattr(layer, f"{theirs}_l0{way}").copy_(torch.from_numpy(made[ours]))
    return layer


def public(kind: str, made: dict[str, AnyArray], state: Any, lengths: Any = None, **attrs: Any) -> Any:
    """The public function of a kind, `kw.lstm` for `lstmp`."""
    more = {"w_hr": made["w_hr"]} if kind == "lstmp" else {}
    weights = [made[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
    return getattr(kw, kind.removesuffix("p"))(made["x"], state, *weights, lengths, **more, **attrs)


__all__ = ["KINDS", "STATES", "judged", "kernels_of", "random_sample", "reference", "torch_layer", "why_not"]
