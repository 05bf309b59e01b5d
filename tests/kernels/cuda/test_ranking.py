"""The model that ranks configurations on a GPU: what has to hold whatever its constants are."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.kernels.cuda import device, ranking
from kernelwright.kernels.cuda.ranking import Block, Work, predict
from kernelwright.kernels.matmul.cuda import choices, product
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.spec import TensorSpec

WORK = Work(m=4096, n=4096, k=4096, unit="bfloat16", item=2, out_item=2)
LARGE = Block(128, 256, 64, warps=8, stages=4, mover="engine", shared=229_664, persistent=True)
SMALL = Block(64, 64, 64, warps=4, stages=4, mover="engine", shared=74_000, persistent=True)
HOPPER = device.chip(90)

LENGTHS = st.sampled_from([1, 3, 8, 16, 35, 64, 200, 700, 1024, 4096, 5124, 16384])
CHIPS = st.sampled_from(device.TARGETS)


def _product(m: int, n: int, k: int, dtype: str, turned: bool = False) -> product.Product:
    a = TensorSpec((m, k), dtype, "cuda")
    size = a.itemsize
    b = TensorSpec((k, n), dtype, "cuda", (size, k * size) if turned else None)
    return product.of_matmul((a, b, *MATMUL.infer((a, b))))


def _ways(p: product.Product, chip: device.Device) -> list[tuple[str, str]]:
    units = ["float32", "tf32"] if p.dtype == "float32" else [p.dtype]
    return [
        (unit, mover)
        for unit in units
        for mover in ("engine", "threads")
        if (mover, unit) in choices.TILES and choices.tiles_problem(p, unit, mover, chip) is None
    ]


@given(LENGTHS, LENGTHS, LENGTHS, st.sampled_from(["bfloat16", "float32"]), st.booleans(), CHIPS)
def test_what_is_offered_can_be_launched(m: int, n: int, k: int, dtype: str, turned: bool, chip: int) -> None:
    p, found = _product(m, n, k, dtype, turned), device.chip(chip)
    for unit, mover in _ways(p, found):
        configs = choices.candidates(p, unit, mover, found)
        assert configs, f"{m}x{n}x{k} {unit} by {mover} on sm_{chip} has no configuration"
        times = [choices.predicted(p, config, unit, mover, found) for config in configs]
        assert times == sorted(times)
        for config in configs:
            q = p.turn() if config["turned"] else p
            block, work = choices.block_of(q, config, unit, mover, found), choices.work_of(q, unit)
            assert ranking.refusal(work, block, found) is None
            assert block.shared <= found.shared_bytes
            assert 1 <= config["splits"] <= max(1, ranking.ceil_div(k, config["bk"]))
            assert ranking.resident_blocks(work, block, found) * block.warps <= 64


@given(LENGTHS, LENGTHS, LENGTHS, st.sampled_from([LARGE, SMALL]), CHIPS)
def test_more_work_takes_no_less_time(m: int, n: int, k: int, block: Block, chip: int) -> None:
    work, found = replace(WORK, m=m, n=n, k=k), device.chip(chip)
    seconds = predict(work, block, found).seconds
    for change in (
        {"k": 2 * k},
        {"matrices": 2, "a_matrices": 2, "b_matrices": 2},
        {"extra": 2},
        {"instructions": 20},
    ):
        assert predict(replace(work, **change), block, found).seconds >= seconds, change


@given(LENGTHS, LENGTHS, LENGTHS, st.sampled_from([LARGE, SMALL]))
def test_a_better_chip_takes_no_more_time(m: int, n: int, k: int, block: Block) -> None:
    work = replace(WORK, m=m, n=n, k=k)
    seconds = predict(work, block, HOPPER).seconds
    assert predict(work, block, replace(HOPPER, bandwidth=2 * HOPPER.bandwidth)).seconds <= seconds
    assert predict(work, block, replace(HOPPER, l2_bytes=4 * HOPPER.l2_bytes)).seconds <= seconds


@given(LENGTHS, LENGTHS, LENGTHS, CHIPS)
def test_no_prediction_beats_the_roof(m: int, n: int, k: int, chip: int) -> None:
    found, p = device.chip(chip), _product(m, n, k, "bfloat16", turned=True)
    flops, moved = 2 * prod((m, n, k)), 2 * (m * k + k * n + m * n)
    roof = max(flops / found.flops["bfloat16"], moved / found.bandwidth)
    for unit, mover in _ways(p, found):
        for config in choices.candidates(p, unit, mover, found):
            assert choices.predicted(p, config, unit, mover, found) > roof
    if min(m, n) <= 4:
        for config in choices.rows_candidates(p, found):
            assert choices.rows_predicted(p, config, found) > roof


@pytest.mark.parametrize(
    ("work", "block", "chip", "reason"),
    [
        (WORK, LARGE, 80, "sm_80 has no bulk copy engine"),
        (WORK, replace(LARGE, shared=240_000), 90, "240,000 bytes of shared memory"),
        (WORK, replace(LARGE, warps=4), 90, "256 sums for each thread"),
        (replace(WORK, unit="float8_e4m3fn"), LARGE, 90, "256 sums for each thread"),
        (replace(WORK, unit="float8_e4m3fn"), replace(SMALL, mover="threads"), 80, "does not multiply"),
    ],
)
def test_what_cannot_be_launched_is_refused(work: Work, block: Block, chip: int, reason: str) -> None:
    assert reason in (ranking.refusal(work, block, device.chip(chip)) or "")


def test_large_squares_take_the_tile_that_reads_least() -> None:
    for size in (2048, 4096, 8192, 16384):
        best = choices.candidates(_product(size, size, size, "bfloat16"), "bfloat16", "engine", HOPPER)[0]
        assert (best["bm"], best["bn"], best["splits"]) == (128, 256, 1)


def test_few_tiles_have_their_k_split_and_many_do_not() -> None:
    deep = choices.candidates(_product(256, 256, 16384, "bfloat16"), "bfloat16", "engine", HOPPER)[0]
    assert deep["splits"] > 1
    flat = choices.candidates(_product(8192, 8192, 256, "bfloat16"), "bfloat16", "engine", HOPPER)[0]
    assert flat["splits"] == 1


def test_few_rows_are_turned_or_streamed() -> None:
    p = _product(16, 4096, 4096, "bfloat16", turned=True)
    best = choices.candidates(p, "bfloat16", "engine", HOPPER)[0]
    assert best["turned"]
    assert best["bn"] == 16
    one = _product(1, 4096, 4096, "bfloat16", turned=True)
    stream = min(choices.rows_predicted(one, c, HOPPER) for c in choices.rows_candidates(one, HOPPER))
    tiles = min(
        choices.predicted(one, c, "bfloat16", "engine", HOPPER)
        for c in choices.candidates(one, "bfloat16", "engine", HOPPER)
    )
    assert stream < tiles
