"""The machine code of the Triton kernels of attention, for each chip; and which configuration is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.attention.cuda import choices  # noqa: E402
from kernelwright.kernels.attention.cuda.problem import Problem, box_problem, problem_of  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

BATCH, HEADS, LENGTH = 4, 16, 4096
CORES = {80: "HMMA", 90: "HGMMA", 100: "UTC"}


def on_gpu(*shape: int, dtype: str = "bfloat16") -> TensorSpec:
    return TensorSpec(shape, dtype, "cuda")


def behind(spec: TensorSpec) -> TensorSpec:
    """[batch, heads, length, features] over memory that is [batch, length, heads, features]."""
    _, heads, length, features = spec.shape
    steps = (length * heads * features, features, heads * features, 1)
    return TensorSpec(spec.shape, spec.dtype, spec.device, tuple(step * spec.itemsize for step in steps))


def call(
    e: int, rows: int = LENGTH, group: int = 1, dtype: str = "bfloat16", mask: TensorSpec = ABSENT,
    heads: int = HEADS, length: int = LENGTH, batch: int = BATCH,
) -> tuple[TensorSpec, ...]:  # fmt: skip
    """The specs of a call of `attention`."""
    q = on_gpu(batch, heads, rows, e, dtype=dtype)
    k = on_gpu(batch, heads // group, length, e, dtype=dtype)
    inputs = (q, k, k, mask)
    return (*inputs, *get_op("attention").infer(inputs, is_causal=False, scale=None))


def grad_call(specs: tuple[TensorSpec, ...], dout: TensorSpec | None = None) -> tuple[TensorSpec, ...]:
    """The specs of the call of `attention_grad` after one of `attention`."""
    inputs = (*specs, dout or specs[4], ABSENT)
    return (*inputs, *get_op("attention_grad").infer(inputs, is_causal=False, scale=None))


def problem(specs: tuple[TensorSpec, ...], causal: bool = False) -> Problem:
    found = problem_of(specs, {"is_causal": causal, "scale": None})
    assert isinstance(found, Problem), found
    return found


def case(
    name: str,
    specs: tuple[TensorSpec, ...],
    config: Mapping[str, Any],
    chip: int,
    causal: bool = True,
    **how: Any,
) -> Case:
    op = "attention_grad" if "kbm" in config else "attention"
    attrs = {"is_causal": causal, "scale": None}
    # All offsets have 64 bits, whatever the size: the code is the same for arrays past 2^31 elements.
    return Case(f"{op}/cuda_triton/{name}", specs, attrs, config, chip, wide=True, **how)


def tile(numbers: tuple[int, ...], splits: int = 1) -> dict[str, Any]:
    return {**choices._named(numbers), "splits": splits}  # type: ignore[arg-type]


def forward_cases() -> Iterator[Case]:
    engine, threads = choices.FORWARD["engine", "half"], choices.FORWARD["threads", "half"]
    hopper = {"expect": ("HGMMA", "UTMALDG"), "forbid": ("LDSM",)}
    yield case("descriptors", call(64), tile(engine[64][0]), 90, **hopper)
    yield case("descriptors", call(128), tile(engine[128][0]), 90, **hopper)
    yield case("descriptors", call(128), tile(engine[128][2]), 90, causal=False, **hopper)
    yield case("descriptors", call(256), tile(engine[256][0]), 90, **hopper)
    rows = on_gpu(BATCH, 1, LENGTH, LENGTH, dtype="bool")
    yield case(
        "descriptors", call(128, mask=rows), tile(engine[128][1]), 90, causal=False, note="mask", **hopper
    )
    decode = call(128, rows=1, group=8)
    memory = ("HMMA", "UTMALDG")
    yield case(
        "descriptors", decode, tile(engine[128][-1], 8), 90, causal=False, expect=memory, note="decode"
    )
    yield case("descriptors", call(128), tile(engine[128][0]), 100, expect=("UTC", "UTMALDG"))
    yield case("pointers", call(128), tile(threads[128][0]), 80, expect=("HMMA", "LDGSTS"))
    yield case("pointers", call(61), tile(choices.UNALIGNED["half"][64]), 90, note="odd")
    yield case("descriptors", call(64), tile(engine[64][0]), 90, aligned=False, note="address")
    exact, parts = choices.FORWARD["threads", "float32"], choices.FORWARD["threads", "tf32x3"]
    yield case("pointers", call(64, dtype="float32"), tile(exact[64][0]), 90, expect=("FFMA", "LDGSTS"))
    yield case("tf32x3", call(64, dtype="float32"), tile(parts[64][0]), 90, expect=("HGMMA", "LDGSTS"))


def backward_cases() -> Iterator[Case]:
    engine, threads = choices.BACKWARD["engine", "half"], choices.BACKWARD["threads", "half"]
    hopper = {"expect": ("HGMMA", "UTMALDG"), "forbid": ("RED", "ATOMG")}
    yield case("descriptors", grad_call(call(64)), choices._pair(*engine[64][0]), 90, **hopper)
    yield case("descriptors", grad_call(call(128)), choices._pair(*engine[128][0]), 90, **hopper)
    yield case(
        "descriptors", grad_call(call(64)), choices._pair(*engine[64][0]), 100, expect=("UTC", "UTMALDG")
    )
    yield case("pointers", grad_call(call(64)), choices._pair(*threads[64][0]), 80, expect=("HMMA", "LDGSTS"))
    exact = choices.BACKWARD["threads", "float32"]
    yield case(
        "pointers", grad_call(call(64, dtype="float32")), choices._pair(*exact[64][0]), 90, expect=("FFMA",)
    )


CASES = [*forward_cases(), *backward_cases()]
PROOF = Proof(CASES)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_the_code_fits_its_chip(one: Case) -> None:
    assert not PROOF.problems(one)


def test_the_model_knows_the_shared_memory() -> None:
    """What decides whether a tile fits is at least what the compiler lays out."""
    for one in CASES:
        if one.kernel.split("/")[-1] == "descriptors" and one.aligned and one.capability == 90:  # type: ignore[union-attr]
            p = problem(one.specs, one.attrs["is_causal"])
            sweeps = choices.backward_sweeps(p, one.config) if "kbm" in one.config else ()
            sweeps = sweeps or (choices.forward_sweep(p, one.config),)
            for code, sweep in zip(PROOF.codes(one), sweeps, strict=True):
                assert code.shared <= sweep.shared, f"{one}: {code}, {sweep.shared} expected"


def test_every_tile_of_a_chip_fits_its_shared_memory() -> None:
    for chip in device.TARGETS:
        found = device.chip(chip)
        for e in (64, 128, 256):
            for grad in (False, True):
                specs = grad_call(call(e)) if grad else call(e)
                assert choices.candidates(problem(specs), grad, "bfloat16", chip >= 90, found)


def best(specs: tuple[TensorSpec, ...], causal: bool = False, chip: int = 90) -> dict[str, Any]:
    """What runs untuned, by the engine where there is one."""
    return choices.candidates(problem(specs, causal), False, "bfloat16", chip >= 90, device.chip(chip))[0]


def test_large_calls_get_high_tiles_and_decoding_gets_parts() -> None:
    assert best(call(128), causal=True)["bm"] == 128
    assert best(call(64))["splits"] == 1
    decode = best(call(128, rows=1, group=8, batch=1))
    assert decode["bm"] == 16
    assert decode["splits"] > 4


def test_short_sequences_of_few_heads_get_lower_tiles() -> None:
    """Sixteen tiles of 128 rows leave most multiprocessors idle."""
    few = best(call(64, batch=1, heads=4, rows=512, length=512))
    assert few["bm"] < 128 or few["splits"] > 1


def test_heads_behind_lengths_and_repeated_heads_go_by_boxes() -> None:
    q, k, v, *rest = call(64)
    assert box_problem(problem((behind(q), behind(k), behind(v), *rest)), ("k", "v", "out")) is None
    repeated = TensorSpec(k.shape, k.dtype, k.device, (0, 0, 128, 2))
    p = problem((q, repeated, repeated, *rest))
    assert box_problem(p, ("k", "v", "out")) is None
    odd = TensorSpec((BATCH, HEADS, LENGTH, 60), "bfloat16", "cuda")
    reason = box_problem(problem((odd, odd, odd, ABSENT, odd, rest[2])), ("k",))
    assert reason is not None
    assert "multiple of 16 bytes" in reason


def test_calls_at_odd_addresses_go_by_pointers_over_the_same_scratch() -> None:
    decode, large = call(128, rows=1, group=8), call(128)
    both = (
        (decode, tile(choices.FORWARD["engine", "half"][128][-1], 8)),
        (grad_call(large), choices._pair(*choices.BACKWARD["engine", "half"][128][0])),
    )
    for specs, config in both:
        op = "attention_grad" if "kbm" in config else "attention"
        (kernel,) = (k for k in kernels_for(op, "cuda") if k.name == "descriptors")
        with device.assume(90):
            bound: Any = kernel.bind(specs, {"is_causal": False, "scale": None}, config, 1)
            steps = bound.chosen((False,) * len(specs))
        assert bound.steps[-1].descriptors()
        assert not any(step.descriptors() for step in steps)
        assert {id(w) for step in steps for w in step.workspaces()} == set(map(id, bound.workspaces))


def test_what_no_kernel_takes_says_why() -> None:
    kernels = {kernel.name: kernel for kernel in kernels_for("attention", "cuda")}
    attrs = {"is_causal": False, "scale": None}
    assert "512" in (kernels["pointers"].why_not(call(512), attrs) or "")
    assert "float32" in (kernels["tf32x3"].why_not(call(64), attrs) or "")
    with device.assume(80):
        assert "copy engine" in (kernels["descriptors"].why_not(call(64), attrs) or "")
