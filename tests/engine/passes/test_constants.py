"""constants: what is known is computed now, but nothing that would fill memory."""

from __future__ import annotations

import numpy as np
from pass_graphs import close, graph_of, known, only, ops_of, same_bits

import kernelwright as kw

W = kw.array(np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32))


def test_operations_on_constants_alone_are_done_now() -> None:
    before = graph_of(lambda x: x @ (kw.exp(known(W)) * 2.0 + known(W).T), "float32 4 64")
    assert ops_of(before) == ["exp", "mul", "transpose", "add", "matmul"]
    after = only(before, "constants")
    assert ops_of(after) == ["matmul"]
    same_bits(before, after)


def test_a_number_is_not_filled_into_a_large_array() -> None:
    before = graph_of(
        lambda x: x + kw.broadcast_to(known(W)[0, 0] * 2.0, (1000, 64)) * 3.0, "float32 1000 64"
    )
    after = only(before, "constants")
    assert ops_of(after) == ["broadcast_to", "mul", "add"]
    assert sum(v.spec.nbytes for node in after.nodes if not node.inputs for v in node.outputs[:1]) < 300_000
    close(before, after)


def test_a_transpose_of_a_constant_stays_a_view() -> None:
    assert ops_of(only(graph_of(lambda x: x @ known(W).T, "float32 4 64"), "constants")) == [
        "transpose",
        "matmul",
    ]


def test_several_outputs_are_all_known() -> None:
    before = graph_of(lambda x: [x + part for part in kw.topk(known(W), 3)[:1]], "float32 64 3")
    after = only(before, "constants")
    assert ops_of(after) == ["add"]
    same_bits(before, after)
