"""The command line: what people type, and what it says when they type something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kernelwright.bench import doctor
from kernelwright.bench import session as sessions
from kernelwright.bench.cli import app
from kernelwright.bench.cli.call_words import parse_shape
from kernelwright.bench.machine import Roof
from kernelwright.bench.store import Run
from kernelwright.kernels.errors import ShapeError

ROOF = Roof({1: {"float32": 1e11, "float64": 5e10}}, {1: {1 << 20: 1e11, 1 << 27: 2e10}}, {1: 2e10}, "now")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sessions, "measured_roof", lambda *args, **more: ROOF)


def kernelwright(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "quik"], "Did you mean 'quick'?"),
        (["bench", "--problem", "sqare-64"], "no problem of suite 'all' matches 'sqare-64'"),
        (
            ["bench", "--problem", "square-64", "--kernel", "packd"],
            "no kernel of matmul on cpu is called 'packd'",
        ),
        (["bench", "--problem", "square-64", "--kernel", "missing.py"], "is no Python file"),
        (["bench", "--baseline", "tork"], "Did you mean 'torch'?"),
        (["bench", "--threads", "0"], "1 or more, got 0"),
        (["bench", "--threads", "two"], "got 'two'"),
        (["bench", "--threads", ","], "--threads is empty"),
        (["bench", "--dtype", "flot32"], "Did you mean 'float32'?"),
        (["bench", "--device", "gpu"], "device 'gpu' is unknown"),
        (["bench", "quik", "--device", "cuda"], "the suites all, quick, steps, not 'quik'"),
        (["bench", "--max-gflop", "-1"], "more than 0 GFLOP"),
        (["bench", "squares", "--op", "conv2d"], "it has matmul"),
        (["list", "kernals"], "Did you mean 'kernels'?"),
        (["explain", "matmull", "3x3", "3x3"], "Did you mean 'matmul'?"),
        (["explain", "matmul", "3x4", "5x6"], "they must be equal"),
        (["explain", "matmul", "3by4", "4x6"], "'3by4' is no shape"),
        (["explain", "matmul", "3x4"], "takes 2 inputs, got 1"),
        (["explain", "conv", "1x8x8x4", "4x4x3x3", "--attr", "stride"], "'stride' is no attribute"),
        (["explain"], "say what to explain"),
        (["explain", "matmul", "3x4", "4x3", "--problem", "square-64"], "say what to explain"),
        (["tune"], "say what to tune"),
        (["tune", "quik"], "Did you mean 'quick'?"),
        (["tune", "quick", "--device", "gpu"], "device 'gpu' is unknown"),
    ],
)
def test_what_makes_no_sense_is_answered_in_a_line_with_exit_code_2(words: list[str], said: str) -> None:
    result = kernelwright(*words)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_unknown_options_and_commands_are_usage_errors() -> None:
    assert kernelwright("bench", "--quik").exit_code == 2
    assert kernelwright("bnech").exit_code == 2


def test_results_that_can_not_be_written_are_found_out_before_measuring() -> None:
    Path("file").write_text("")
    result = kernelwright("bench", "--problem", "tiny-8", "--threads", "1", "--json", "file/run.json")
    assert result.exit_code == 2
    assert "can't be written to file/run.json" in result.output


def test_bench_ends_with_table_json_and_page() -> None:
    words = ["--threads", "1", "--quick", "--kernel", "reference", "--baseline", "numpy"]
    result = kernelwright("bench", "--problem", "tiny-8*", *words)
    assert result.exit_code == 0, result.output
    (json_path,) = Path("kernelwright-results").glob("*-all.json")
    assert json_path.with_suffix(".html").read_text().startswith("<!doctype html>")
    run = Run.load(json_path)
    assert run.status == "complete"
    assert [case.problem.name for case in run.results] == ["tiny-8", "tiny-8-f64"]
    assert all(case.headline is not None for case in run.results)
    for said in ("tiny-8", "GFLOP/s", "ratio", str(json_path)):
        assert said in result.output


def test_check_times_nothing() -> None:
    words = ["--threads", "1", "--check", "--kernel", "reference", "--json", "r.json"]
    result = kernelwright("bench", "--problem", "tiny-8", *words)
    assert result.exit_code == 0, result.output
    assert Run.load(Path("r.json")).results[0].status == "checked"
    assert Path("r.html").exists()


def test_a_wrong_kernel_ends_with_exit_code_4_and_its_error() -> None:
    Path("wrong.py").write_text(
        "import kernelwright as kw\n"
        "@kw.kernel('matmul', rank=-9, binds=True, language='numpy')\n"
        "def wrong_for_cli(specs, attrs, config, threads):\n"
        "    return lambda a, b, out: out.fill(1)\n"
    )
    result = kernelwright(
        "bench", "--problem", "tiny-8", "--threads", "1", "--kernel", "wrong.py", "--no-vendor"
    )
    assert result.exit_code == 4, result.output
    assert "matmul/wrong/wrong_for_cli wrong: " in result.output
    assert "relative error" in result.output


def test_list_shows_everything() -> None:
    whole = kernelwright("list")
    assert whole.exit_code == 0
    for said in (
        "ops:",
        "matmul(a, b)",
        "kernels:",
        "suites:",
        "deepbench-train",
        "baselines:",
        "torch",
        "numpy",
    ):
        assert said in whole.output
    suite = kernelwright("list", "kernelbench")
    assert "kernelbench-1-square: matmul 1024x1024 @ 1024x1024 float32  (scaled from" in suite.output
    assert "left out: kernelbench-12-diagonal-matrices" in suite.output


def test_explain_takes_attributes_and_inputs_that_are_left_out() -> None:
    words = ["conv", "1x8x8x4", "6x4x3x3", "-", "--attr", "layout=NHWC", "--attr", "stride=2,2"]
    result = kernelwright("explain", *words, "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "conv/cpu_numba/direct" in result.output
    words = ["lstm", "5x2x3", "-", "-", "16x3", "16x4", "-", "-", "2:int64"]
    result = kernelwright("explain", *words)
    assert result.exit_code == 0, result.output
    assert "lstm/cpu_numba" in result.output


def test_explain_knows_the_problems_of_the_suites() -> None:
    result = kernelwright("explain", "--problem", "lstm-training-t50-b1-h128", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "lstm_grad/cpu_numba" in result.output


def test_explain_names_the_choice_and_the_layout() -> None:
    result = kernelwright("explain", "matmul", "64x128T", "128x32", "--dtype", "float64", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "f64[64,128; 8,512]@cpu" in result.output
    assert "1 thread" in result.output


def test_shapes_are_read_as_they_are_written() -> None:
    assert parse_shape("8x64x128", "float32").shape == (8, 64, 128)
    assert parse_shape("128", "float32").shape == (128,)
    assert parse_shape("0x3T", "float32").stored_shape == (3, 0)
    for word in ("128T", "x", "3x", "-1x3", "3x4xT", ""):
        with pytest.raises(ShapeError):
            parse_shape(word, "float32")


def test_doctor_reports_and_finds_misspelt_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_NUM_THREDS", "2")
    result = kernelwright("doctor")
    assert result.exit_code == 1
    assert (
        "KERNELWRIGHT_NUM_THREDS is set, but nothing reads it. Did you mean 'KERNELWRIGHT_NUM_THREADS'?"
        in result.output
    )
    for said in ("versions", "processor", "caches", "threads", "baseline", "numpy", "noise"):
        assert said in result.output


def test_doctor_knows_every_variable_that_is_read() -> None:
    root = Path(doctor.__file__).parents[1]
    rooms = [root / room for room in ("kernels", "engine", "bench")]
    read = {
        name
        for room in rooms
        for path in room.rglob("*.py")
        for name in re.findall(r"KERNELWRIGHT_[A-Z_]+", path.read_text("utf-8"))
    }
    assert read <= set(doctor.OUR_VARIABLES) | {"KERNELWRIGHT_"}


def test_doctor_knows_the_gpu_and_what_is_known_of_times_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.kernels.cuda import device

    monkeypatch.setenv(device.TARGET_VARIABLE, "90")
    without = kernelwright("doctor").output
    assert device.TARGET_VARIABLE not in without
    assert device.available() or "NVIDIA H200" not in without
    monkeypatch.setattr(device, "available", lambda: True)
    with device.assume(90):
        there = kernelwright("doctor").output
    assert "NVIDIA H200 (sm_90, 132 multiprocessors)" in there
    assert "no times of it are shipped, and none were measured here" in there
    assert "kernelwright tune tuned --device cuda" in there


def test_doctor_finds_an_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(blocked / "cache"))
    result = kernelwright("doctor")
    assert result.exit_code == 1
    assert "can't be written" in result.output
    assert "KERNELWRIGHT_CACHE_DIR" in result.output
