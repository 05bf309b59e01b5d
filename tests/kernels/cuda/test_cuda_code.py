"""Machine code ahead of time: what is read from it, and that each kind of bad code is found."""

from __future__ import annotations

import pytest
from gpu_extra import need

need("triton")

import toy_cuda  # noqa: E402
from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import aot, device  # noqa: E402

CHIPS = device.TARGETS
TILES = (toy_cuda.spec(1024, 512, dtype="bfloat16"), toy_cuda.spec(1024, 64, dtype="bfloat16"))
LARGE = (toy_cuda.spec(1024, 512, dtype="bfloat16"), toy_cuda.spec(1024, 256, dtype="bfloat16"))
SMALL = {"bm": 64, "bk": 64, "warps": 4, "stages": 3}
TENSOR_CORES = {80: ("HMMA",), 90: ("HGMMA", "UTMALDG"), 100: ("UTC", "UTMALDG")}
SQUARE = (toy_cuda.spec(64, 2**26),) * 2

GOOD = [
    *(
        Case(toy_cuda.bind_plain_add, (toy_cuda.spec(1024),) * 3, {"scale": 2.0}, toy_cuda.CONFIGS[0], chip)
        for chip in CHIPS
    ),
    *(
        Case(toy_cuda.bind_squared, TILES, {}, SMALL, chip, expect=TENSOR_CORES[chip], forbid=("FFMA",))
        for chip in CHIPS
    ),
    Case(
        toy_cuda.bind_plain_add,
        (toy_cuda.spec(2**32),) * 3,
        {"scale": 2.0},
        toy_cuda.CONFIGS[0],
        90,
        wide=True,
    ),
]
SPILLS = Case(toy_cuda.bind_squared, LARGE, {}, {"bm": 256, "bk": 64, "warps": 4, "stages": 2}, 90)
OVERSIZED = Case(toy_cuda.bind_squared, LARGE, {}, {"bm": 256, "bk": 128, "warps": 8, "stages": 5}, 90)
ELSEWHERE = Case(toy_cuda.bind_squared, TILES, {}, SMALL, 80, expect=("UTMALDG", "HGMMA"))
FORBIDDEN = Case(toy_cuda.bind_squared, TILES, {}, SMALL, 80, forbid=("HMMA",))
NARROW = Case(toy_cuda.bind_gathered, SQUARE, {}, {"bm": 64}, 90, wide=True)
CAPPED = Case(toy_cuda.bind_squared, TILES, {}, SMALL, 80, registers=32)
BROKEN = Case(toy_cuda.bind_broken, SQUARE, {}, {}, 90)
PROOF = Proof([*GOOD, SPILLS, OVERSIZED, ELSEWHERE, FORBIDDEN, NARROW, CAPPED, BROKEN])


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_good_code_has_no_problem(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (SPILLS, "spilled registers"),
        (SPILLS, "bytes of stack"),
        (OVERSIZED, "bytes of shared memory; a block has at most 232,448"),
        (ELSEWHERE, "no UTMALDG"),
        (ELSEWHERE, "no HGMMA"),
        (FORBIDDEN, "32 HMMA"),
        (NARROW, "addresses computed with 32-bit offsets"),
        (CAPPED, "and at most 32 are allowed"),
        (BROKEN, "CompilationError"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_kind_of_bad_code_is_found(case: Case, problem: str) -> None:
    found = PROOF.problems(case)
    assert any(problem in text for text in found), found


def test_code_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(aot.CodeError, match=r"cuobjdump -sass (failed|shows no instruction)"):
        aot.disassembled(b"this is no machine code")
    with pytest.raises(aot.CodeError):
        aot.resource_usage(b"\x7fELF")


def test_the_digest_of_a_source_covers_what_is_compiled_of_it() -> None:
    launches = [
        toy_cuda.bind_plain_add((toy_cuda.spec(n),) * 3, {"scale": 2.0}, config, 1)
        for n in (1024, 2048, 1000)
        for config in toy_cuda.CONFIGS
    ]
    digests = [aot.source_digest(launch.variants()[0]) for launch in launches]
    assert digests[:2] == digests[2:4]  # another length
    assert len(set(digests)) == 4  # two configurations, and whether the length is a multiple of 16
