"""The recurrent Triton kernels in Triton's interpreter: right in every order in which their programs may run,
and the broken ones caught.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import check, interpreted, kernel_by_id, standing_in  # noqa: E402
from triton_together import ORDERS  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.cuda import CudaArray  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.recurrent import samples  # noqa: E402
from kernelwright.kernels.recurrent.cuda import backward, choices, exchange, forward  # noqa: E402
from kernelwright.kernels.recurrent.cuda.problem import call_of  # noqa: E402

pytestmark = interpreted

# By op the samples that go through every branch of its kernels, each with another order of programs. The
# whole list of an op's samples is run on a GPU (`make gpu`).
NAMES = {
    "lstm": ("0x2x3x4", "3x2x0x4", "2x3x5x7", "2x5x8x65", "lengths", "resets and lengths, batch first"),
    "gru": ("1x1x1x1", "4x2x33x17", "heads, resets, lengths", "no states", "transposed"),
    "rnn": ("3x1x16x16", "2x5x8x65", "resets", "batch first", "x repeated"),
    "lstm_grad": ("0x2x3x4", "4x2x33x17", "lengths, no dy, dh_n", "heads, resets, lengths", "x repeated"),
    "gru_grad": ("2x3x5x7", "lengths, no dh_n, dc_n", "heads, resets, lengths", "spread"),
    "rnn_grad": ("2x5x8x65", "lengths, no dy", "3 heads of 7", "batch first"),
    "lstm_cell": ("1x33x17", "13x20x31", "no c0", "transposed"),
    "gru_cell": ("1x0x3", "5x8x65", "no b_ih, b_hh", "spread"),
    "rnn_cell": ("1x1x1", "3x16x16", "no h0"),
}
DTYPES = ("bfloat16", "float16", "float32")


def kernel_of(op: str) -> Any:
    """The Triton kernel of an op."""
    return kernel_by_id(f"{op}/cuda_triton/{'fused' if op.endswith('_cell') else 'together'}")


def found(op: str, name: str, dtype: str = "bfloat16") -> Sample:
    """The first sample of that name which torch can hold and the kernel takes."""
    for sample in get_op(op).samples(np.random.default_rng(1), dtype):
        if sample.name == name and untakeable(sample) is None:
            return sample
    raise AssertionError(f"{op} has no sample {name!r}")


def configs(op: str, sample: Sample) -> list[dict[str, Any]]:
    """The kernel's configurations for a sample."""
    kernel = kernel_of(op)
    return kernel.configurations(cuda_specs(kernel, sample), get_op(op).complete(sample.attrs), 1)


def cut(op: str, sample: Sample, resident: bool) -> dict[str, Any]:
    """The first configuration that keeps its weights, or the first that reads them in each step."""
    specs = cuda_specs(kernel_of(op), sample)
    call, back = call_of(op, specs, get_op(op).complete(sample.attrs)), op.endswith("_grad")
    found = choices._resident if resident else choices._streaming
    return found(call, back, device.chip(90))[0]


@pytest.mark.parametrize(("op", "place"), [(op, i) for op, names in NAMES.items() for i in range(len(names))])
def test_samples_are_right(op: str, place: int) -> None:
    dtype = DTYPES[place % 3]
    sample = found(op, NAMES[op][place], dtype)
    all_configs = configs(op, sample)
    config = all_configs[place % len(all_configs)]
    # Products that are split into parts order themselves by counters.
    verdict = check(kernel_of(op), sample, config, order=ORDERS[place % len(ORDERS)], ordered=True)
    assert verdict.ok, f"{sample!r} by {config}: {verdict.text}"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("op", ["lstm", "gru_grad"])
def test_any_order_of_programs_is_right(op: str, resident: bool, order: str) -> None:
    sample = found(op, "3x8x20x31" if resident else "4x2x33x17")
    verdict = check(kernel_of(op), sample, cut(op, sample, resident), order=order, ordered=True)
    assert verdict.ok, verdict.text


ALONE = (
    *(("lstm", "19 heads of 1"), ("gru", "3 heads of 7"), ("rnn", "resets"), ("rnn_grad", "lengths, no dy")),
    *(("lstm_grad", "heads, resets, lengths"), ("gru_grad", "1 heads of 19")),
)


@pytest.mark.parametrize(("op", "name"), ALONE)
def test_a_head_alone_meets_nobody(op: str, name: str) -> None:
    sample = found(op, name)
    config = configs(op, sample)[0]
    assert config["solo"]
    # No order of programs is needed, and none must matter.
    assert check(kernel_of(op), sample, config, ordered=True, backwards=True).ok


def test_sequences_fall_into_launches_that_fit_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that wait for each other must all run at one time; tiles of sequences need not."""
    sample = found("lstm", "3x8x20x31")
    config = cut("lstm", sample, True)
    monkeypatch.setattr(choices, "groups_at_once", lambda *call: 1)
    config["rows"] = 4
    verdict = check(kernel_of("lstm"), sample, config, ordered=True)
    assert verdict.ok, verdict.text


def test_a_nan_that_looks_like_an_empty_word_is_another_nan() -> None:
    """Else a state of this very NaN would be waited for for ever."""
    sample = found("rnn", "2x3x5x7")
    x, h0, *rest = sample.inputs
    assert h0 is not None
    broken = h0.copy()
    broken.view(np.uint16)[0, 0] = 0xFFFF
    twice = Sample("nan", (x, broken, *rest), sample.attrs)
    assert check(kernel_of("rnn"), twice, cut("rnn", twice, True), ordered=True).ok


# --- Kernels that are wrong on purpose ----------------------------------------------------------------------


@pytest.fixture(params=["lstm", "lstm_grad"])
def victim(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """An op and the file of its kernel."""
    return request.param, backward if request.param.endswith("_grad") else forward


def caught(op: str, resident: bool) -> str:
    """What is said of the kernel of an op, over several orders: a verdict's text, or an error's."""
    sample = found(op, "4x2x33x17")
    for order in ORDERS:
        try:
            verdict = check(kernel_of(op), sample, cut(op, sample, resident), order=order, ordered=True)
        except Exception as error:
            return str(error)
        if not verdict.ok:
            return verdict.text
    return ""


def test_a_kernel_that_does_not_wait_is_caught(victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    op, file = victim
    monkeypatch.setattr(file, "awaits", lambda tiles, count: 0)
    assert caught(op, True)


def test_a_kernel_that_reads_a_slot_again_is_caught(victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot for all steps: what a step before has left there is no state of this one."""
    op, file = victim
    real, kept = file.state_at, {}

    def again(slot: Any, *rest: Any) -> Any:
        return kept.setdefault(rest, real(slot, *rest))

    monkeypatch.setattr(file, "state_at", again)
    assert caught(op, True)


def test_plain_loads_of_what_others_write_are_caught(victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    op, file = victim
    import triton.language as tl

    def plain(at: Any, live: Any, step: Any, count: Any) -> Any:
        return tuple(tl.load(at + i * step, mask=live, other=0.0) for i in range(count))

    monkeypatch.setattr(file, "tiles_of", plain)
    assert "RaceError" in caught(op, True)


def test_a_state_that_nobody_stores_is_waited_for_and_reported(
    victim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, file = victim
    monkeypatch.setattr(file, "publish", lambda *args: None)
    assert "StuckError" in caught(op, True)


def test_counting_without_waiting_is_caught(victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    op, file = victim
    monkeypatch.setattr(file, "wait", lambda counter, count: None)
    assert "RaceError" in caught(op, False)


def test_arrivals_that_nobody_counts_are_reported(victim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    op, file = victim
    monkeypatch.setattr(file, "arrive", lambda counter: None)
    assert "StuckError" in caught(op, False)


def test_the_pattern_itself_must_not_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other NaN, a NaN of all ones is never seen to arrive."""
    real = exchange.OTHER_32
    monkeypatch.setattr(exchange, "OTHER_32", type(real)(-1))
    assert real.value == 0x7FFFFFFF
    assert exchange.EMPTY_16.value == exchange.OTHER_32.value


# --- The public face ----------------------------------------------------------------------------------------


def test_the_public_face_brings_lengths_and_resets_to_the_device() -> None:
    import torch

    made = samples.contents("gru", np.random.default_rng(3), 3, 2, 4, 5, "float32")
    resets, lengths = np.array([[0, 1], [1, 0], [0, 0]], bool), [3, 1]
    weights = [made[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
    expected, last = kw.gru(made["x"], made["h0"], *weights, lengths, resets)
    with standing_in() as runtime, kw.using(backend="triton"):
        tensors = [torch.from_numpy(a) for a in (made["x"], made["h0"], *weights)]
        array = [CudaArray(t) for t in tensors]
        y, h = kw.gru(*array, lengths, resets)
        found_y, found_h = (torch.from_dlpack(a).numpy() for a in (y, h))
    assert "forward" in runtime.steps
    np.testing.assert_allclose(found_y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_h, last, rtol=1e-5, atol=1e-6)


def test_what_the_kernels_do_not_take_is_refused_with_the_reason() -> None:
    before = found("gru", "2x3x5x7")
    op = get_op("gru")
    kernel = kernel_of("gru")
    attrs = {**op.complete(before.attrs), "reset_after": False}
    assert "resets after the product" in str(kernel.why_not(cuda_specs(kernel, before), attrs))
    mixed = found("lstm", "bfloat16 weights", "float32")
    kernel = kernel_of("lstm")
    assert "weights of the dtype of x" in str(
        kernel.why_not(cuda_specs(kernel, mixed), get_op("lstm").complete(mixed.attrs))
    )
