"""Which kernel runs a call, and whether the reasons given are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_op import SPECS, add_kernel, right

import kernelwright as kw
from kernelwright.kernels import dispatch, registry, settings, tuning
from kernelwright.kernels.cache import Entry
from kernelwright.kernels.dispatch import bind, choose, explain, fallbacks
from kernelwright.kernels.errors import DeviceError, DTypeError, NoKernelError, ShapeError
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Op, TensorSpec, problem_key
from kernelwright.kernels.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")
ONE = Settings(1)
OUT_SPECS = (*SPECS, SPECS[0])


def measured(kernel: Kernel, seconds: float, config: dict[str, Any] | None = None, threads: int = 1) -> None:
    """Put a measured time for the toy problem into the cache."""
    key = problem_key(registry.get_op("toy"), OUT_SPECS, {"scale": 2.0})
    entry = Entry(kernel.id, kernel.source_digest(), key, threads, config or {}, seconds)
    tuning.default_cache().put([entry])


def run(launch: Any) -> np.ndarray:
    x, y = np.ones((7, 5), "f4"), np.full((7, 5), 3, "f4")
    out = np.full((7, 5), np.nan, "f4")
    launch(x, y, out)
    return out


def test_without_models_the_highest_rank_runs(toy: Op) -> None:
    add_kernel("low")
    high = add_kernel("high", rank=2)
    add_kernel("lower", rank=-1)
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is high
    assert choice.why == "rank 2, the highest of 3"
    assert [c.kernel.name for c in choice.candidates] == ["high", "low", "lower"]


def test_the_lowest_prediction_goes_before_those_without_a_model(toy: Op) -> None:
    add_kernel("plain")
    add_kernel("slow", model=lambda *_: 2e-6)
    fast = add_kernel("fast", model=lambda *_: 1e-6)
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is fast
    assert choice.why == "the fastest of 2 predicted"
    assert [c.kernel.name for c in choice.candidates] == ["fast", "slow", "plain"]


def test_a_rank_above_zero_goes_before_models(toy: Op) -> None:
    add_kernel("modelled", model=lambda *_: 1e-9)
    mine = add_kernel("mine", rank=1)
    assert choose(toy, SPECS, settings=ONE).kernel is mine


def test_the_best_predicted_configuration_is_taken(toy: Op) -> None:
    add_kernel(
        "sized",
        configs=[{"n": 1}, {"n": 2}, {"n": 3}],
        model=lambda specs, attrs, config, threads: {1: 3e-6, 2: 1e-6, 3: 2e-6}[config["n"]],
    )
    assert choose(toy, SPECS, settings=ONE).config == {"n": 2}


def test_the_first_configuration_is_the_default_without_a_model(toy: Op) -> None:
    add_kernel("sized", configs=[{"n": 7}, {"n": 1}])
    assert choose(toy, SPECS, settings=ONE).config == {"n": 7}


def test_models_see_the_threads(toy: Op) -> None:
    add_kernel("serial", model=lambda *_: 1e-6)
    add_kernel("parallel", model=lambda s, a, c, threads: 3e-6 / threads)
    names = [choose(toy, SPECS, settings=Settings(n)).kernel for n in (1, 4)]
    assert [kernel and kernel.name for kernel in names] == ["serial", "parallel"]


def test_a_model_that_does_not_say_counts_as_none(toy: Op) -> None:
    add_kernel("silent", model=lambda *_: None)
    add_kernel("nan", model=lambda *_: float("nan"))
    sure = add_kernel("sure", model=lambda *_: 1.0)
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is sure
    assert [c.predicted_s for c in choice.candidates] == [1.0, None, None]


def test_a_model_that_fails_takes_only_its_own_kernel_out(toy: Op) -> None:
    add_kernel("broken", model=lambda *_: 1 / 0)
    fine = add_kernel("fine")
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is fine
    assert "model() raised ZeroDivisionError" in str(choice.candidates[1].reason_not)


def test_a_measurement_goes_before_predictions_and_ranks(toy: Op) -> None:
    predicted = add_kernel("predicted", model=lambda *_: 1e-9, rank=5)
    proven = add_kernel("proven")
    measured(predicted, 2e-3)
    measured(proven, 1e-3)
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is proven
    assert choice.why == "the fastest of 2 measured"
    assert [c.tuned_s for c in choice.candidates] == [1e-3, 2e-3]
    assert choose(toy, SPECS, settings=Settings(2)).kernel is predicted, "measured on one thread only"
    assert choose(toy, SPECS, {"scale": 3.0}, ONE).kernel is predicted, "another problem"


def test_the_fastest_measured_configuration_is_taken(toy: Op) -> None:
    kernel = add_kernel("sized", configs=[{"n": 1}, {"n": 2}])
    measured(kernel, 2e-3, {"n": 1})
    measured(kernel, 1e-3, {"n": 2})
    measured(kernel, 1e-9, {"n": 3})  # no longer in the list
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.config == {"n": 2}
    assert choice.why == "the only kernel that supports the call, in its fastest measured configuration"


def test_measurements_of_others_do_not_replace_a_kernel_that_was_never_measured(toy: Op) -> None:
    best = add_kernel("edited yesterday", rank=1)
    slow = add_kernel("slow")
    measured(slow, 1.0)
    assert choose(toy, SPECS, settings=ONE).kernel is best


def test_measurements_of_older_source_are_void(toy: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = add_kernel("edited")
    measured(kernel, 1.0)
    assert choose(toy, SPECS, settings=ONE).candidates[0].tuned_s == 1.0
    monkeypatch.setattr(Kernel, "source_digest", lambda self: "another")
    assert choose(toy, SPECS, settings=ONE).candidates[0].tuned_s is None


def test_kernels_that_refuse_say_why_and_come_last(toy: Op) -> None:
    add_kernel("picky", rank=9, supports=lambda specs, attrs: "only squares")
    wide = add_kernel("wide", rank=8, dtypes="float64")
    fine = add_kernel("fine")
    choice = choose(toy, SPECS, settings=ONE)
    assert choice.kernel is fine
    assert choice.why == "the only kernel that supports the call"
    reasons = {c.kernel.name: c.reason_not for c in choice.candidates}
    assert reasons == {"fine": None, "picky": "only squares", "wide": "takes float64, not float32"}
    assert choose(toy, [kw.TensorSpec((2,), "float64")] * 2, settings=ONE).kernel is wide


@pytest.mark.parametrize("backend", ["mine", "toy/toy_op/mine", "magic"])
def test_a_backend_is_a_name_an_id_or_a_language(backend: str, toy: Op) -> None:
    add_kernel("other", rank=5)
    mine = add_kernel("mine", language="magic")
    with kw.using(backend=backend, strict=True):
        choice = choose(toy, SPECS)
    assert choice.kernel is mine
    assert choice.fallback is None


def test_the_reference_can_be_asked_for(toy: Op) -> None:
    add_kernel("wrong", lambda x, y, out, *_: out.fill(0))
    with kw.using(backend="reference", strict=True):
        choice = choose(toy, SPECS)
        np.testing.assert_array_equal(run(bind(toy, OUT_SPECS)), np.full((7, 5), 7))
    assert choice.kernel is None
    assert choice.fallback is None


def test_without_a_kernel_the_reference_runs_and_is_counted(toy: Op) -> None:
    before = fallbacks().get("toy: kernel -> reference", 0)
    with kw.using(strict=False):
        launch = bind(toy, OUT_SPECS)
    for _ in range(3):
        np.testing.assert_array_equal(run(launch), np.full((7, 5), 7))
    assert fallbacks()["toy: kernel -> reference"] == before + 3


def test_another_kernel_than_the_forced_one_is_a_counted_fallback(toy: Op) -> None:
    add_kernel("mine", supports=lambda *_: "not today")
    other = add_kernel("other", rank=1)
    with kw.using(backend="mine", strict=False):
        choice = choose(toy, SPECS)
        run(bind(toy, OUT_SPECS))
    assert choice.kernel is other
    assert choice.why.startswith("no kernel matches backend 'mine' here; ")
    assert fallbacks()["toy: mine -> toy/toy_op/other"] >= 1


def test_strict_settings_refuse_to_fall_back_and_list_every_reason(toy: Op) -> None:
    add_kernel("picky", supports=lambda *_: "only squares")
    add_kernel("wide", dtypes="float64")
    with kw.using(strict=True), pytest.raises(NoKernelError) as caught:
        bind(toy, OUT_SPECS)
    text = str(caught.value)
    assert "no kernel supports toy(f32[7,5]@cpu, f32[7,5]@cpu)" in text
    assert "only squares" in text
    assert "takes float64, not float32" in text
    assert "KERNELWRIGHT_STRICT" in text
    with kw.using(strict=True, backend="pikcy"), pytest.raises(NoKernelError, match="Did you mean 'picky'"):
        bind(toy, OUT_SPECS)


def test_kernels_that_declare_an_extra_error_run_unless_that_is_forbidden(toy: Op) -> None:
    exact = add_kernel("exact", model=lambda *_: 2e-6)
    rough = add_kernel("rough", model=lambda *_: 1e-6, error=kw.ExtraError(8.0, "it rounds twice"))
    assert choose(toy, SPECS).kernel is rough
    with kw.using(extra_error=False):
        assert choose(toy, SPECS).kernel is exact
        assert "extra_error=False is set (it rounds twice)" in str(explain(toy, SPECS))
        with kw.using(backend="rough", strict=True), pytest.raises(NoKernelError, match="it rounds twice"):
            choose(toy, SPECS)
        measured(rough, 1e-9, threads=kw.get_num_threads())
        assert choose(toy, SPECS).kernel is exact, "however fast it was measured to be"


def test_float64_is_computed_with_an_extra_error_only_where_that_was_asked_for(toy: Op) -> None:
    exact = add_kernel("exact", dtypes="float64", model=lambda *_: 2e-6)
    rough = add_kernel("rough", dtypes="float64", model=lambda *_: 1e-6, error=kw.ExtraError(8.0, "rounds"))
    wide = tuple(TensorSpec(spec.shape, "float64") for spec in SPECS)
    assert choose(toy, wide).kernel is exact
    assert "float64 allows that only with extra_error=True (rounds)" in str(explain(toy, wide))
    with kw.using(extra_error=True):
        assert choose(toy, wide).kernel is rough


def test_the_launch_is_worked_out_once_until_something_changes(toy: Op) -> None:
    add_kernel("first")
    with kw.using(threads=1):
        launch = bind(toy, OUT_SPECS)
        assert bind(toy, OUT_SPECS) is launch
        assert bind(toy, OUT_SPECS, {"scale": 2.0}) is launch, "the default spelled out"
        assert bind(toy, OUT_SPECS, {"scale": 3.0}) is not launch
        second = add_kernel("second", lambda x, y, out, *_: out.fill(-1), rank=1)
        assert run(bind(toy, OUT_SPECS))[0, 0] == -1, "a new kernel counts at once"
        registry.unregister(second)
        assert run(bind(toy, OUT_SPECS))[0, 0] == 7


def test_a_new_measurement_counts_at_once(toy: Op) -> None:
    first = add_kernel("first", rank=1)
    second = add_kernel("second", lambda x, y, out, *_: out.fill(-1))
    with kw.using(threads=1):
        assert run(bind(toy, OUT_SPECS))[0, 0] == 7
        measured(first, 2.0)
        measured(second, 1.0)
        assert run(bind(toy, OUT_SPECS))[0, 0] == -1


def test_a_choice_overtaken_by_a_change_is_not_kept(toy: Op) -> None:
    def supports(specs: Any, attrs: Any) -> None:
        if not settings.current().memo.get("registered"):
            add_kernel("newer", rank=5)
            settings.current().memo["registered"] = print

    add_kernel("older", supports=supports)
    with kw.using(threads=3):
        bind(toy, OUT_SPECS)
        assert list(settings.current().memo) == ["registered"]
        settings.clear_memos()


def test_a_call_without_output_elements_reaches_no_kernel(toy: Op) -> None:
    empty = [kw.TensorSpec((0, 5), "float32")] * 3
    with kw.using(strict=True):
        bind(toy, empty)(*[np.zeros((0, 5), "f4")] * 3)
        kernel = add_kernel(
            "any", lambda *_: pytest.fail("was run"), supports=lambda *_: pytest.fail("was asked")
        )
        bind(toy, empty)(*[np.zeros((0, 5), "f4")] * 3)
        kernel.bind(tuple(empty), {"scale": 2.0}, {}, 1)(*[np.zeros((0, 5), "f4")] * 3)
    with pytest.raises(ShapeError):
        bind(toy, [empty[0], SPECS[0]])


def test_the_memo_does_not_grow_without_end(toy: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    add_kernel("any")
    monkeypatch.setattr(dispatch, "_MEMO_LIMIT", 10)
    with kw.using(threads=1):
        for n in range(25):
            bind(toy, [kw.TensorSpec((n,), "float32")] * 3)
        assert 0 < len(settings.current().memo) <= 10


def test_configurations_and_attributes_reach_the_kernel(toy: Op) -> None:
    seen: list[Any] = []
    add_kernel("any", lambda x, y, out, scale, config: seen.append((scale, config)), configs=[{"n": 4}])
    run(bind(toy, OUT_SPECS, {"scale": 5.0}))
    assert seen == [(5.0, {"n": 4})]


def test_calls_that_do_not_fit_are_refused_before_any_kernel_is_asked(toy: Op) -> None:
    add_kernel("any", supports=lambda *_: pytest.fail("was asked"))
    with pytest.raises(ShapeError, match="give them one shape"):
        choose(toy, [SPECS[0], kw.TensorSpec((5, 7), "float32")])
    with pytest.raises(DeviceError, match="x on cpu, y on cuda"):
        choose(toy, [SPECS[0], kw.TensorSpec((7, 5), "float32", "cuda")])
    with pytest.raises(ShapeError, match=r"the output is f32\[7,5\]@cpu, so it cannot go to f32\[5,7\]@cpu"):
        choose(toy, [*SPECS, kw.TensorSpec((5, 7), "float32")])
    with pytest.raises(DTypeError, match="1 outputs, got specs of 2"):
        choose(toy, [*SPECS, *SPECS])
    with pytest.raises(DTypeError, match="no attribute 'scala'"):
        choose(toy, SPECS, {"scala": 1.0})
    with pytest.raises(DTypeError, match=r"hashable.*tuples for lists"):
        bind(toy, OUT_SPECS, {"scale": [1.0]})


def test_an_explanation_shows_call_choice_and_reasons(toy: Op) -> None:
    add_kernel("fast", model=lambda *_: 1.234e-6, configs=[{"mc": 96, "kc": 384}])
    add_kernel("picky", supports=lambda *_: "only squares")
    with kw.using(threads=1, strict=True):
        explanation = explain(toy, SPECS)
    assert explanation.choice.kernel is not None
    assert explanation.cost.flops == 70
    assert str(explanation).splitlines() == [
        "toy(x: f32[7,5]@cpu, y: f32[7,5]@cpu, scale=2.0) -> f32[7,5]@cpu",
        "  70 FLOP, 420 bytes, 0.167 FLOP/byte; 1 thread",
        "  runs toy/toy_op/fast {mc=96 kc=384}: the only kernel that supports the call",
        "     kernel            configuration  predicted  measured",
        "  >  toy/toy_op/fast   mc=96 kc=384   1.23 us",
        "     toy/toy_op/picky                                      only squares",
    ]


def test_an_explanation_of_a_fallback_is_no_error_under_strict_settings(
    toy: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "missing", lambda op, device: ("cuda_triton needs 'triton'",))
    with kw.using(threads=2, strict=True, backend="numba"):
        text = str(explain(toy, SPECS))
    assert "runs the NumPy reference: no kernel matches backend 'numba' here" in text
    assert "2 threads, backend 'numba'" in text
    assert "no kernel of toy is registered" in text
    assert "not loaded: cuda_triton needs 'triton'" in text


def test_an_unwritable_cache_does_not_disturb_a_call(
    toy: Op, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    kernel = add_kernel("any", right)
    assert choose(toy, SPECS, settings=ONE).kernel is kernel
