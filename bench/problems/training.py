"""Forward and backward of a recurrent layer as one problem: what a training step pays for it.

No kernel computes both: ours is a call of `lstm` with `train=True` and one of `lstm_grad`, and so for `gru`
and `rnn`. These ops are known to the bench alone.

    lstm_training(x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, resets, dy, dh_n, dc_n)
        -> y, h_n, c_n, dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from ...kernels.op import AnyArray, Attrs, Cost, Op, Sample, Specs, get_op
from ...kernels.spec import ABSENT, TensorSpec

KINDS = ("lstm", "gru", "rnn")
SUFFIX = "_training"


@dataclass(frozen=True)
class Training:
    """The two ops of a kind, and how the arrays go from one to the other.

    Attributes:
        kind: "lstm", "gru" or "rnn".
    """

    kind: str

    @property
    def forward(self) -> Op:
        return get_op(self.kind)

    @property
    def backward(self) -> Op:
        return get_op(f"{self.kind}_grad")

    @property
    def states(self) -> int:
        """How many states there are."""
        return 2 if self.kind == "lstm" else 1

    @property
    def gradients(self) -> tuple[str, ...]:
        """The names of the gradients that come in."""
        return ("dy", "dh_n", "dc_n")[: 1 + self.states]

    def forward_attrs(self, attrs: Attrs) -> dict[str, Any]:
        """Those of the forward call."""
        return {**attrs, "train": True} if "train" in self.forward.attrs else dict(attrs)

    def split(self, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The inputs of the forward call, and the gradients."""
        count = len(self.forward.inputs)
        return inputs[:count], inputs[count:]

    def backward_inputs(
        self, inputs: tuple[Any, ...], outputs: tuple[Any, ...], gradients: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """The inputs of the gradient op, from those of the forward one and all that it returned."""
        known = dict(zip(self.forward.inputs, inputs, strict=True))
        known |= dict(zip(self.gradients, gradients, strict=True))
        names = self.backward.inputs
        saved = [name for name in names if name not in known and name != "y"]
        known |= {"y": outputs[0], **dict(zip(saved, outputs[1 + self.states :], strict=True))}
        return tuple(known[name] for name in names)

    def run(
        self, call: Callable[..., tuple[Any, ...]], inputs: tuple[Any, ...], attrs: Attrs
    ) -> tuple[Any, ...]:
        """Both, by `call(op, inputs, attrs) -> outputs`."""
        first, gradients = self.split(inputs)
        outputs = call(self.forward, first, self.forward_attrs(attrs))
        found = call(self.backward, self.backward_inputs(first, outputs, gradients), attrs)
        return (*outputs[: 1 + self.states], *found)


def _infer(training: Training, specs: Specs, **attrs: Any) -> Specs:
    return training.run(lambda op, inputs, own: op.infer(inputs, **op.complete(own)), tuple(specs), attrs)


def _reference(training: Training, *arrays: AnyArray | None, **attrs: Any) -> tuple[AnyArray, ...]:
    return training.run(lambda op, inputs, own: op.reference(*inputs, **op.complete(own)), arrays, attrs)


def _magnitude(training: Training, *arrays: AnyArray | None, **attrs: Any) -> tuple[AnyArray, ...]:
    """As the ops themselves have it: an element's size, at least the root mean square of its output."""
    outputs = _reference(training, *arrays, **attrs)
    return tuple(
        np.maximum(np.abs(out), np.sqrt(np.mean(np.square(out)))) if out.size else out for out in outputs
    )


def _specs_backward(training: Training, specs: Specs, attrs: Attrs) -> Specs:
    first, gradients = training.split(tuple(specs))
    op = training.forward
    outputs = op.infer(first, **op.complete(training.forward_attrs(attrs)))
    return training.backward_inputs(first, outputs, gradients)


def _cost(training: Training, specs: Specs, **attrs: Any) -> Cost:
    first, _ = training.split(tuple(specs))
    op, grad = training.forward, training.backward
    one = op.cost(first, **op.complete(training.forward_attrs(attrs)))
    two = grad.cost(_specs_backward(training, specs, attrs), **grad.complete(attrs))
    return Cost(one.flops + two.flops, one.bytes + two.bytes)


def _reduction_length(training: Training, specs: Specs, **attrs: Any) -> int:
    grad = training.backward
    return grad.reduction_length(_specs_backward(training, specs, attrs), **grad.complete(attrs))


def _draw(
    training: Training, rng: np.random.Generator, specs: Specs, **attrs: Any
) -> tuple[AnyArray | None, ...]:
    first, gradients = training.split(tuple(specs))
    made = training.forward.contents(rng, first, training.forward_attrs(attrs))
    return (*made, *(_normal(rng, spec) for spec in gradients))


def _normal(rng: np.random.Generator, spec: TensorSpec) -> AnyArray | None:
    return None if spec is ABSENT else rng.standard_normal(spec.shape).astype(spec.np_dtype)


def _no_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    yield from ()


@cache
def training_op(name: str) -> Op | None:
    """The op of that name, such as `"lstm_training"`; None for any other name."""
    kind = name.removesuffix(SUFFIX)
    if kind == name or kind not in KINDS:
        return None
    training = Training(kind)
    forward = training.forward
    return Op(
        name=name,
        infer=partial(_infer, training),
        reference=partial(_reference, training),
        cost=partial(_cost, training),
        samples=_no_samples,
        reduction_length=partial(_reduction_length, training),
        inputs=(*forward.inputs, *training.gradients),
        optional=(*forward.optional, *training.gradients),
        own_dtype=forward.own_dtype,
        attrs=training.backward.attrs,
        dtypes=forward.dtypes,
        doc=f"{kind} forward, and the gradients of it.",
        magnitude=partial(_magnitude, training),
        draw=partial(_draw, training),
        family=forward.family,
    )
