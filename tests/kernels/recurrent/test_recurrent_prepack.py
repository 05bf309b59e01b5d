"""Recurrent weights that were packed ahead: they are the weights, and results have the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recurrent_calls import KINDS

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DTypeError, GradientError, ShapeError
from kernelwright.kernels.prepack import Packed, prepack
from kernelwright.kernels.recurrent import samples
from kernelwright.kernels.recurrent.prepack import unpack
from kernelwright.kernels.spec import np_dtype

WEIGHTS = ("w_ih", "w_hh", "w_hr")


def made_for(kind: str, t: int, b: int, h: int, dtype: str) -> dict[str, Any]:
    """Contents of a call; of bfloat16 the weights alone."""
    wide = "float32" if dtype == "bfloat16" else dtype
    made = samples.contents(kind, np.random.default_rng(4), t, b, 37, h, wide)
    return samples._halved(made) if dtype == "bfloat16" else made


def packed(kind: str, made: dict[str, Any], *names: str) -> dict[str, Any]:
    """The contents with these weights packed, all of them unless named."""
    chosen = [name for name in names or WEIGHTS if name in made]
    return {**made, **{name: prepack(kind, made[name], name=name) for name in chosen}}


def run(kind: str, made: dict[str, Any], **attrs: Any) -> list[Any]:
    """y and the last states of the public function."""
    given = dict(made)
    x, h0, c0 = given.pop("x"), given.pop("h0"), given.pop("c0", None)
    state = h0 if c0 is None else (h0, c0)
    function = getattr(kw, "lstm" if kind == "lstmp" else kind)
    y, last = function(x, state, given.pop("w_ih"), given.pop("w_hh"), **given, **attrs)
    return [np.asarray(a) for a in (y, *(last if isinstance(last, tuple) else (last,)))]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_weight_is_the_weight(kind: str, dtype: str) -> None:
    rng, gates = np.random.default_rng(0), samples._GATES[kind]
    for units, inner in ((1, 1), (16, 16), (37, 5), (70, 33), (0, 4), (5, 0)):
        for name in WEIGHTS if kind == "lstmp" else WEIGHTS[:2]:
            rows = units * (1 if name == "w_hr" else gates)
            weight = rng.standard_normal((rows, inner)).astype(np_dtype(dtype))
            held = prepack(kind, np.asfortranarray(weight), name=name)
            assert held.shape == weight.shape
            assert held.data.dtype == weight.dtype
            assert held.data.size == 0 or held.data.ctypes.data % 64 == 0
            np.testing.assert_array_equal(unpack(kind, name, held.data, held.format, held.shape), weight)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_results_have_the_bits_of_the_call_that_packs(kind: str, dtype: str) -> None:
    # Few sequences keep weights of 16 bits as they are, 13 have them widened.
    for b in (1, 13):
        made = made_for(kind, 5, b, 83, dtype)
        for names in (WEIGHTS, ("w_hh",)):
            for threads in (1, 2):
                with kw.using(threads=threads):
                    plain, ahead = run(kind, made), run(kind, packed(kind, made, *names))
                for mine, other in zip(ahead, plain, strict=True):
                    np.testing.assert_array_equal(mine, other)


def test_both_ways_to_reset_read_the_same_panels() -> None:
    made = made_for("gru", 4, 3, 50, "float32")
    for reset_after in (True, False):
        found = run("gru", packed("gru", made), reset_after=reset_after, reverse=True)
        for mine, other in zip(found, run("gru", made, reset_after=reset_after, reverse=True), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_weights_packed_for_another_machine_are_refused_with_the_reason_and_still_right() -> None:
    made = made_for("rnn", 2, 3, 5, "float32")
    data = np.zeros((3, 5, 2), "f4")
    data.transpose(0, 2, 1).reshape(6, 5)[...] = 0
    rows = np.zeros((6, 5), "f4")
    rows[:5] = made["w_hh"]
    data[...] = rows.reshape(3, 2, 5).transpose(0, 2, 1)
    foreign = Packed("rnn", data.reshape(-1), "gates1x2", (5, 5))
    inputs = [made["x"], made["h0"], made["w_ih"], foreign.data, made["b_ih"], made["b_hh"], None, None]
    text = str(kw.explain("rnn", *inputs, w_hh_format="gates1x2", w_hh_shape=(5, 5)))
    assert "w_hh is packed as gates1x2" in text
    for mine, other in zip(run("rnn", {**made, "w_hh": foreign}), run("rnn", made), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(DTypeError, match="lstm_grad takes no packed weights"):
        prepack("lstm_grad", np.ones((4, 2), "f4"))
    with pytest.raises(DTypeError, match="this one is float16"):
        prepack("lstm", np.ones((4, 2), "f2"))
    with pytest.raises(ShapeError, match=r"w_ih has the shape \[6, 2\], and must be \[4 H, ...\]"):
        prepack("lstm", np.ones((6, 2), "f4"))
    with pytest.raises(ShapeError, match=r"w_hr has the shape \[6\], and must be \[P, H\]"):
        prepack("lstmp", np.ones(6, "f4"), name="w_hr")
    with pytest.raises(ConfigError, match="gru has no weight 'w_hr'"):
        prepack("gru", np.ones((3, 1), "f4"), name="w_hr")


def test_packed_weights_that_do_not_fit_are_refused() -> None:
    made = made_for("gru", 2, 3, 5, "float32")
    ahead = packed("gru", made)
    lstm = prepack("lstm", np.ones((20, 5), "f4"))
    for name, wrong, error, text in (
        ("w_hh", lstm, ConfigError, r"w_hh_format is 'gates4x\d+'; pass what kernels.prepack.prepack\('gru'"),
        ("w_hh", Packed("linear", lstm.data, "panels64", (15, 5)), ConfigError, "w_hh_format is 'panels64'"),
        ("w_ih", prepack("gru", np.ones((15, 36), "f4")), ShapeError, r"w_ih is f32\[15,36\]@cpu, but must"),
        ("w_hh", prepack("gru", np.ones((12, 4), "f4")), ShapeError, "must be .12, 37. here"),
        ("w_hh", Packed("gru", ahead["w_hh"].data[:-1], ahead["w_hh"].format, (15, 5)), ShapeError, "is 1-D"),
        ("w_hh", Packed("gru", lstm.data, ahead["w_hh"].format, (14, 5)), ShapeError, "w_hh_shape is"),
        ("w_hh", prepack("gru", made["w_hh"].astype("f8")), DTypeError, "both weights must be"),
    ):
        with pytest.raises(error, match=text):
            run("gru", {**ahead, name: wrong})


def test_packed_weights_have_no_gradient_and_say_so() -> None:
    made = made_for("lstm", 2, 3, 5, "float32")
    ahead = packed("lstm", made)

    def loss(x: kw.Array) -> kw.Array:
        return kw.lstm(x, None, ahead["w_ih"], ahead["w_hh"])[0].sum()

    with pytest.raises(GradientError, match="packed weights have no gradient"):
        kw.grad(loss)(kw.array(made["x"]))
