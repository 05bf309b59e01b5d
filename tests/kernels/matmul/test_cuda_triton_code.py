"""The machine code of every shipped configuration of the Triton matmuls, for each chip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device, ranking  # noqa: E402
from kernelwright.kernels.matmul.cuda import choices, product  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

SIZE = 4096
CORES = {80: "HMMA", 90: "HGMMA", 100: "UTC"}
FLOAT8_CORES = {90: "QGMMA", 100: "UTC"}
ENGINE = [chip for chip in device.TARGETS if chip >= 90]


def on_gpu(*shape: int, dtype: str = "bfloat16", turned: bool = False, pad: int = 0) -> TensorSpec:
    """A matrix; `turned`: the transpose of a row-major one; `pad`: with rows that much further apart."""
    size = TensorSpec(shape, dtype).itemsize
    if len(shape) == 1:
        return TensorSpec(shape, dtype, "cuda")
    if turned:
        return TensorSpec(shape, dtype, "cuda", (size, (shape[0] + pad) * size))
    return TensorSpec(shape, dtype, "cuda", ((shape[1] + pad) * size, size) if pad else None)


def case(kernel: str, inputs: Any, config: Mapping[str, Any], chip: int, note: str = "", **how: Any) -> Case:
    name, attrs = kernel.partition("/")[0], how.pop("attrs", {})
    op = get_op(name)
    complete = op.complete(attrs)
    with device.assume(chip):
        specs = (*inputs, *op.infer(tuple(inputs), **complete))
    return Case(
        f"{name}/cuda_triton/{kernel.partition('/')[2]}", specs, complete, config, chip, note=note, **how
    )


def configured(tile: tuple[int, ...], **other: Any) -> dict[str, Any]:
    named = dict(zip(("bm", "bn", "bk", "warps", "stages"), tile, strict=True))
    return {**named, "splits": 1, "turned": False, **other}


def square(dtype: str, turned: bool = False) -> TensorSpec:
    return on_gpu(SIZE, SIZE, dtype=dtype, turned=turned)


def plain_cases() -> Iterator[Case]:
    """Every line of the table of configurations, for every chip that runs it: x w^T of squares."""
    for (mover, unit), tiles in choices.TILES.items():
        if unit in ("float16", "float8_e4m3fn"):
            continue  # float16 is bfloat16 to everything but the instruction's name
        dtype = "float32" if unit in ("tf32", "float32") else unit
        kernel = {"tf32": "tf32", "float32": "pointers"}.get(unit, "descriptors")
        if mover == "threads":
            kernel = "tf32_pointers" if unit == "tf32" else "pointers"
        for chip in ENGINE if mover == "engine" else device.TARGETS:
            moves = "UTMALDG" if mover == "engine" else "LDGSTS"
            expect = ("FFMA|FFMA2", moves) if unit == "float32" else (CORES[chip], moves)
            for tile in tiles:
                inputs = (square(dtype), square(dtype), ABSENT, ABSENT)
                yield case(f"linear/{kernel}", inputs, configured(tile), chip, unit, expect=expect)


def float8_cases() -> Iterator[Case]:
    """Factors by row and column, b by columns, as the tensor cores want it."""
    one = TensorSpec((SIZE,), "float32", "cuda")
    for mover, kernel in (("engine", "descriptors"), ("threads", "pointers")):
        for tile in choices.TILES[mover, "float8_e4m3fn"]:
            for chip in ENGINE:
                inputs = (square("float8_e4m3fn"), square("float8_e4m3fn", turned=True), one, one, ABSENT)
                moves = "UTMALDG" if mover == "engine" else "LDGSTS"
                expect = (FLOAT8_CORES[chip], moves)
                yield case(f"scaled_matmul/{kernel}", inputs, configured(tile), chip, expect=expect)
    tile = choices.TILES["engine", "float8_e4m3fn"][0]
    inputs = (square("float8_e4m3fn"), square("float8_e4m3fn"), one, one, on_gpu(SIZE, dtype="float32"))
    yield case(
        "scaled_matmul/float32", inputs, configured(tile), 90, "b by rows", attrs={"out_dtype": "float32"}
    )


def ended_cases() -> Iterator[Case]:
    """With all that a tile may end with, and with split k."""
    half = (square("bfloat16"), square("bfloat16"))
    rest = (TensorSpec((SIZE,), "bfloat16", "cuda"), square("bfloat16"))
    for mover, kernel, chip in (("engine", "descriptors", 90), ("threads", "pointers", 80)):
        for tile in choices.TILES[mover, "bfloat16"]:
            config = configured(tile)
            if offered((*half, *rest, square("bfloat16")), config, mover, chip):
                yield case(
                    f"linear/{kernel}", (*half, *rest), config, chip, "all", attrs={"activation": "gelu"}
                )
            config = configured(tile, splits=4)
            if offered((*half, ABSENT, ABSENT, square("bfloat16")), config, mover, chip):
                yield case(f"matmul/{kernel}", half, config, chip, "split")
    config = configured((128, 128, 32, 8, 4))
    floats = (square("float32"), square("float32"), TensorSpec((SIZE,), "float32", "cuda"), square("float32"))
    yield case("linear/tf32", floats, config, 90, "all", attrs={"activation": "gelu_tanh"})


def offered(specs: Any, config: Mapping[str, Any], mover: str, chip: int) -> bool:
    """Whether a configuration is among those that the kernel may be given."""
    p = product.of_linear(specs, None)
    work, found = choices.work_of(p, "bfloat16"), device.chip(chip)
    block = choices.block_of(p, config, "bfloat16", mover, found)
    if choices._crowded(p, block, work) or ranking.refusal(work, block, found):
        return False
    return config["splits"] == 1 or not choices._most_sums(block, work)


def form_cases() -> Iterator[Case]:
    """Transposed operands are read as they lie: no copies through registers. Batches, ragged results."""
    large, middle = configured((128, 256, 64, 8, 4)), configured((128, 128, 32, 4, 4))
    for a_turned in (False, True):
        for b_turned in (False, True):
            inputs = (square("bfloat16", a_turned), square("bfloat16", b_turned))
            how = {"expect": ("HGMMA", "UTMALDG"), "forbid": ("LDSM", "LDS")}
            yield case("matmul/descriptors", inputs, large, 90, f"{a_turned}{b_turned}", **how)
            yield case(
                "matmul/pointers", inputs, middle, 80, f"{a_turned}{b_turned}", expect=("HMMA", "LDGSTS")
            )
    three = (TensorSpec((8, 512, 512), "bfloat16", "cuda"),) * 2
    yield case("matmul/descriptors", three, large, 90, "batch", expect=("HGMMA", "UTMALDG", "UTMASTG"))
    ragged = (square("bfloat16"), on_gpu(SIZE, SIZE - 1, pad=1))
    config = configured((128, 128, 64, 8, 4))
    yield case("matmul/descriptors", ragged, config, 90, "ragged", expect=("HGMMA", "UTMALDG"))
    few = (on_gpu(16, SIZE), on_gpu(SIZE, SIZE, turned=True))
    narrow = configured((64, 16, 128, 4, 6), splits=4, turned=True)
    yield case("matmul/descriptors", few, narrow, 90, "decode", expect=("HGMMA", "UTMALDG"))


def unaligned_cases() -> Iterator[Case]:
    """Element by element, where neither strides nor addresses are multiples of 16 bytes."""
    for dtype in ("bfloat16", "float32"):
        config = configured(choices.UNALIGNED[dtype])
        for chip in device.TARGETS:
            inputs = (on_gpu(1023, 1021, dtype=dtype), on_gpu(1021, 1027, dtype=dtype))
            yield case("matmul/pointers", inputs, config, chip, "odd")
    odd = (square("bfloat16"), square("bfloat16"))
    yield case("matmul/descriptors", odd, configured((128, 128, 64, 4, 3)), 90, "address", aligned=False)


def row_cases() -> Iterator[Case]:
    """A stream by vectors of 16 bytes, without tensor cores or shared memory in the loop."""
    for chip in device.TARGETS:
        for rows, dtype in ((1, "bfloat16"), (4, "bfloat16"), (1, "float32"), (4, "float32")):
            for turned in (False, True):
                inputs = (on_gpu(rows, SIZE, dtype=dtype), on_gpu(SIZE, SIZE, dtype=dtype, turned=turned))
                p = product.of_matmul((*inputs, on_gpu(rows, SIZE, dtype=dtype)))
                config = choices.rows_candidates(p, device.chip(chip))[0]
                how = {"expect": ("LDG.E.128|LDG.E.NA.128",), "forbid": ("HMMA", "HGMMA", "LDGSTS")}
                yield case("matmul/rows", inputs, config, chip, **how)


def wide_cases() -> Iterator[Case]:
    """Strides that pass 2^31 elements."""
    far = on_gpu(64, 4096, pad=2**27)
    tall = on_gpu(2**20, 4096)
    for kernel, config in (
        ("pointers", configured((64, 64, 64, 4, 4))),
        ("descriptors", configured((64, 64, 64, 4, 4))),
        ("rows", {"bn": 16, "bk": 256, "warps": 4, "splits": 1}),
    ):
        a = far if kernel != "rows" else on_gpu(4, 4096)
        yield case(f"matmul/{kernel}", (a, on_gpu(4096, 2**20, turned=True)), config, 90, "far", wide=True)
    linear = (tall, on_gpu(4096, 4096), on_gpu(4096), tall)
    yield case("linear/pointers", linear, configured((64, 64, 64, 4, 4)), 90, "far", wide=True)


CASES = [
    *plain_cases(),
    *float8_cases(),
    *ended_cases(),
    *form_cases(),
    *unaligned_cases(),
    *row_cases(),
    *wide_cases(),
]
PROOF = Proof(CASES)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_the_code_fits_its_chip(one: Case) -> None:
    assert not PROOF.problems(one)


def test_the_model_knows_the_shared_memory() -> None:
    """What ranking counts is at least what the compiler lays out, and less than a stage more."""
    checked = 0
    for one in CASES:
        mover = {"descriptors": "engine", "tf32": "engine", "float32": "engine"}.get(
            one.kernel.split("/")[-1], "threads"
        )
        if "bm" not in one.config or not one.aligned:
            continue
        p = _product(one)
        unit = "tf32" if "tf32" in one.kernel else p.dtype
        block = choices.block_of(p, one.config, unit, mover, device.chip(one.capability))
        (code,) = PROOF.codes(one)
        assert code.shared <= block.shared, f"{one}: {code.shared} laid out, {block.shared} expected"
        checked += 1
    assert checked > 50


def _product(one: Case) -> product.Product:
    name = one.kernel.split("/")[0]
    of = {"linear": lambda s: product.of_linear(s, None), "scaled_matmul": product.of_scaled}
    p = of.get(name, product.of_matmul)(one.specs)
    return p.turn() if one.config["turned"] else p
