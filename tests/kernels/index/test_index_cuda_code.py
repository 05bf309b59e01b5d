"""The machine code of the Triton kernels that pick, join, add up and sort, for each chip, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_cases import code, spec  # noqa: E402
from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op, ops  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import ABSENT  # noqa: E402

VECTORS = ("LDG.E.128", "STG.E.128")
EVERYWHERE = device.TARGETS


def moves() -> Iterator[Case]:
    """16 bytes at a time wherever both sides lie so."""
    words, table = spec((16384,), "int64"), spec((50000, 1024), "bfloat16")
    yield from code("embedding", [table, words], {}, *VECTORS, chips=EVERYWHERE)
    yield from code("embedding", [spec((50000, 300), "float32"), spec((4096,), "int32")], {}, *VECTORS)
    yield from code("gather", [spec((4096, 1024), "float32"), spec((4096, 512), "int64")], {"axis": 1})
    yield from code("one_hot", [words], {"num_classes": 1000}, "STG.E.128")
    image = spec((64, 56, 56, 64), "bfloat16")
    border = {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0)}
    yield from code("pad", [image], border, *VECTORS)
    yield from code(
        "pad",
        [spec((64, 64, 56, 56), "float32")],
        {"before": (0, 0, 1, 1), "after": (0, 0, 1, 1), "mode": "reflect"},
    )
    yield from code("roll", [image], {"shifts": (0, 3, 3, 0)}, *VECTORS)
    yield from code("tril", [spec((64, 1024, 1024), "float32")], {}, *VECTORS)
    box = {"shape": (64, 1024, 64), "starts": (0, 100, 0), "stops": (64, 612, 64), "steps": (1, 1, 1)}
    yield from code("slice_grad", [spec((64, 512, 64), "bfloat16")], box, *VECTORS)
    other = spec((64, 56, 56, 128), "bfloat16")
    yield from code("concat", [image, other, *[ABSENT] * 14], {"axis": 3}, *VECTORS, chips=EVERYWHERE)


def sums_and_orders() -> Iterator[Case]:
    """Sums over sorted rows, by both ways of sorting; rows in registers; digits."""
    few = [spec((4096, 1024), "bfloat16"), spec((4096,), "int64")]
    yield from code("index_sum", few, {"axis": 0, "length": 50000}, *VECTORS, chips=EVERYWHERE)
    many = [spec((65536, 256), "float32"), spec((65536,), "int64")]
    yield from code("index_sum", many, {"axis": 0, "length": 200, "skip": 3}, *VECTORS)
    terms = [spec((4096, 1), "float32"), spec((4096, 1), "int64")]
    yield from code("scatter_sum", terms, {"axis": 1, "shape": (4096, 50000)}, "STG.E.128")
    cells = [spec((512, 2048), "float32"), spec((512, 2048), "int64")]
    yield from code("scatter_sum", cells, {"axis": 1, "shape": (512, 4096)})
    yield from code("sort", [spec((4096, 1000), "float32")], {"axis": 1})
    yield from code("sort", [spec((1 << 22,), "float64")], {"axis": 0})
    yield from code("topk", [spec((64, 50257), "float32")], {"axis": 1, "k": 50})
    yield from code("searchsorted", [spec((1000,), "float32"), spec((64, 10000), "float32")], {})


def enormous() -> Iterator[Case]:
    """Arrays of more than 2^31 elements: no address may come from an offset of 32 bits."""
    words, table = spec((4096,), "int64"), spec((4 << 20, 1024), "bfloat16")
    yield from code("embedding", [table, words], {}, wide=True)
    rows = [spec((4096, 1024), "bfloat16"), words]
    yield from code("index_sum", rows, {"axis": 0, "length": 4 << 20}, wide=True)
    image = spec((48, 1024, 1024, 64), "bfloat16")
    yield from code("pad", [image], {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0)}, wide=True)
    yield from code("concat", [image, image, *[ABSENT] * 14], {"axis": 3}, wide=True)
    yield from code("sort", [spec((4 << 20, 1000), "bfloat16")], {"axis": 1}, wide=True)


CASES = [*moves(), *sums_and_orders()]
ENORMOUS = list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_moves_sums_and_orders_are_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_of_moves_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)


def test_every_op_has_a_kernel_for_all_its_dtypes() -> None:
    for op in ops():
        if op.family in ("index", "pool", "resize") or op.name == "slice_grad":
            taken = {dtype for kernel in kernels_for(op.name, "cuda") for dtype in kernel.dtypes}
            assert taken == set(op.dtypes), op.name


def test_eight_rows_of_a_sum_are_in_flight() -> None:
    case = next(case for case in CASES if case.kernel.startswith("index_sum"))
    (sums,) = [found for found in PROOF.codes(case) if found.kernel == "run_sums"]
    assert sums.instructions["LDG.E.128"] == 8


def test_numbers_of_one_size_share_their_code_whatever_their_dtype_and_lengths() -> None:
    (kernel,) = kernels_for("embedding", "cuda")
    op, found = get_op("embedding"), set()
    with device.assume(90):
        for dtype, rows, count in (
            ("bfloat16", 50000, 4096),
            ("float16", 30522, 640),
            ("bfloat16", 7, 16384),
        ):
            specs, attrs = (spec((rows, 768), dtype), spec((count,), "int64")), op.complete({})
            launch = kernel.bind((*specs, *op.infer(specs, **attrs)), attrs, {}, 1)
            found.add(launch.variants()[0])
    assert len(found) == 1
