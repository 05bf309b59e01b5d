"""The bench on a GPU, all of it but the device: tiny problems, Triton's interpreter, the host's clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gpu_extra import need

torch = need("torch", "triton")

import toy_cuda  # noqa: E402
from triton_interpreter import interpreted, standing_in  # noqa: E402

from kernelwright.bench.cuda import record, run, worker  # noqa: E402
from kernelwright.bench.cuda.cases import jobs as cases  # noqa: E402
from kernelwright.bench.cuda.cases.conv import conv  # noqa: E402
from kernelwright.bench.cuda.cases.job import Job, specs_on  # noqa: E402
from kernelwright.bench.cuda.cases.jobs import jobs  # noqa: E402
from kernelwright.bench.cuda.cases.matmul import scaled, squares  # noqa: E402
from kernelwright.bench.cuda.contest import host_seconds  # noqa: E402
from kernelwright.bench.cuda.work import Place, timed  # noqa: E402
from kernelwright.bench.problems.problem import Operand, Problem, matmul  # noqa: E402
from kernelwright.kernels import dispatch, registry, tuning  # noqa: E402
from kernelwright.kernels.cache import TuningCache  # noqa: E402
from kernelwright.kernels.cuda import device, tables  # noqa: E402
from kernelwright.kernels.cuda.clock import HostClock, sets_for  # noqa: E402
from kernelwright.kernels.errors import ConfigError  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

pytestmark = interpreted
LAYER = (3, 16, 16, 6, 1)


def tiny() -> Iterator[tuple[Problem, bool | None]]:
    yield next(squares("bfloat16", [32], "square-bf16")), None
    yield next(squares("float32", [32], "square-tf32")), True
    yield (
        matmul("decode-1", (1, 32), (32, 48), trans_b=True, group="decode", source="", dtype="float16"),
        None,
    )
    yield next(scaled([32])), None
    inputs = (Operand((24, 32), "bfloat16"), Operand((16, 32), "bfloat16"), Operand((16,), "bfloat16"), None)
    yield Problem("up", "linear", inputs, "transformers", "", attrs={"activation": "gelu_tanh"}), None
    for op in ("conv", "conv_input_grad", "conv_weight_grad"):
        yield conv(f"tiny-{op}", op, 2, LAYER, ""), None
    yield conv("depthwise", "conv", 2, LAYER, "", groups=16), None


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cases, "races", lambda suite: tiny())
    monkeypatch.setattr("kernelwright.bench.cuda.work.sets_for", lambda footprint, cache: 2)
    monkeypatch.setattr("kernelwright.bench.cuda.contest.WARM_CALLS", 1)
    monkeypatch.setattr("kernelwright.bench.cuda.work.SEARCH_SECONDS", 100.0)
    monkeypatch.setattr("kernelwright.kernels.search._MOST_ROUNDS", 1)
    monkeypatch.setattr("kernelwright.kernels.matmul.cuda.choices.MOST_OFFERED", 2)
    monkeypatch.setattr("kernelwright.kernels.cuda.trial.sets_for", lambda footprint, cache: 2)
    with standing_in():
        for op in cases.cuda_ops():  # CUDA C is compiled, and does not run here
            for kernel in registry.kernels_for(op, "cuda"):
                if kernel.language != "triton":
                    registry.unregister(kernel)
        yield


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Place:
    return Place(HostClock(), "cpu", 7, cache=TuningCache(tmp_path / "cache"))


def _named(name: str) -> Job:
    return next(job for job in jobs("all", True) if job.name == name)


@pytest.mark.parametrize("name", [p.name for p, _ in tiny()])
def test_a_race_judges_ours_and_times_both(name: str, place: Place) -> None:
    result = timed(_named(f"race {name}"), place)
    assert result["status"] == "right", result
    assert result["ratio"] > 0
    assert result["ours_s"] > 0
    assert result["judged"]["norm"] <= result["judged"]["allowed"]
    assert result["vendor"]["ok"]
    assert result["sets"] == 2
    assert not result["tuned"]


@pytest.mark.parametrize("name", [p.name for p, _ in tiny()])
def test_what_is_drawn_lies_as_the_specs_say(name: str, place: Place) -> None:
    problem = _named(f"race {name}").problem
    assert problem is not None
    for spec, tensor in zip(specs_on(problem), place.inputs(problem), strict=True):
        if tensor is not None:
            steps = tuple(stride * tensor.element_size() for stride in tensor.stride())
            assert TensorSpec(tuple(tensor.shape), spec.dtype, "cuda", steps) == spec
    if problem.op in ("conv", "conv_input_grad"):
        weight = place.inputs(problem)[1]
        assert weight.is_contiguous(memory_format=torch.channels_last)


def _off_by_one(attrs: object, tensors: Any, seed: int) -> Any:
    a, b = (tensor.double() for tensor in tensors)
    return a @ b + 1, a.abs() @ b.abs(), lambda result: result


def test_a_wrong_result_is_found_and_not_timed(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    from kernelwright.kernels.cuda import truth

    monkeypatch.setitem(truth._TRUTHS, "matmul", _off_by_one)
    result = timed(_named("race square-bf16-32"), place)
    assert result["status"] == "wrong"
    assert "ratio" not in result


def test_a_launch_is_measured_apart(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setattr("kernelwright.bench.cuda.work.host_seconds", partial(host_seconds, rounds=1))
    result = timed(Job("launch", "launch"), place)
    assert result["status"] == "right", result
    assert min(result["launch_s"], result["call_s"], result["torch_s"]) > 0


def test_a_copy_gives_the_roof_of_what_is_bound_by_memory(place: Place) -> None:
    result = timed(_named("copy"), place)
    assert result["status"] == "right", result
    assert result["bytes_s"] > 0


def test_only_the_jobs_that_are_asked_for_are_done(place: Place, tmp_path: Path) -> None:
    def spawn(orders: dict[str, Any], results: Path, seconds: float) -> int:
        return worker.main(orders, results, place)

    asked = run.Wanted("all", False, json=tmp_path / "r.json", only=("cop*",))
    assert set(run.run(asked, lambda line: None, spawn, tmp_path).results) == {"copy"}
    with pytest.raises(ConfigError, match="no job of the suite all is called nothing"):
        run.run(run.Wanted("all", only=("nothing",)), lambda line: None, spawn, tmp_path)


def test_a_search_races_the_untuned_choice_against_what_was_found(place: Place) -> None:
    result = timed(_named("search square-bf16-32"), place)
    assert result["status"] == "right", result
    assert result["loss"] > 0
    assert len(result["times"]) == len(result["entries"]) > 1
    assert all(entry["problem"].endswith(" on NVIDIA H200 (sm_90)") for entry in result["entries"])
    assert place.cache is not None
    assert len(place.cache) == len(result["entries"])
    assert set(result["tuned"]) == {"kernel", "config", "codes"}
    assert set(result["seconds_each"]) >= {"tuned"}


def test_an_untuned_call_that_is_the_best_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernelwright.bench.cuda import work

    def only_the_choice(op: Any, specs: Any, attrs: Any, **more: Any) -> tuning.TuningResult:
        choice = dispatch.choose(op, specs, attrs, tuned=False)
        assert choice.kernel is not None
        return tuning.TuningResult("", 1, (tuning.Timing(choice.kernel, choice.config, 1e-3, 5),))

    monkeypatch.setattr(work.tuning, "tune", only_the_choice)
    result = timed(_named("search square-bf16-32"), place)
    assert result["loss"] == 1.0
    assert set(result["seconds_each"]) == {"tuned"}


def test_a_search_tells_of_a_wrong_configuration(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.kernels.cuda import truth

    monkeypatch.setitem(truth._TRUTHS, "matmul", _off_by_one)
    result = timed(_named("search square-bf16-32"), place)
    assert result["status"] == "wrong"
    assert result["wrong"][0].startswith("matmul/cuda_triton/")
    assert "loss" not in result


def test_a_proof_ends_where_it_is_when_time_is_up(place: Place) -> None:
    place.until = 0.0
    result = timed(Job("proof", "p", op="matmul", dtype="bfloat16"), place)
    assert (result["checked"], result["cut"], result["status"]) == (0, True, "right")


def test_a_run_from_beginning_to_end(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the device: jobs, worker, record, its copy, the table of times, and shipping that."""
    wanted = [pair for pair in tiny() if pair[0].name in ("square-bf16-32", "fp8-32")]
    monkeypatch.setattr(cases, "races", lambda suite: iter(wanted))
    monkeypatch.setattr("kernelwright.bench.cuda.work.host_seconds", partial(host_seconds, rounds=1))
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "tables")

    def spawn(orders: dict[str, Any], results: Path, seconds: float) -> int:
        return worker.main(orders, results, place)

    told: list[str] = []
    asked = run.Wanted("all", False, json=tmp_path / "r.json", seed=3, out=tmp_path / "out")
    made = run.run(asked, told.append, spawn, tmp_path)
    assert made.status == "complete", told
    assert run.exit_code(made) == 0, told
    assert [name for name in made.results if name.startswith("search")] == [
        "search square-bf16-32",
        "search fp8-32",
    ]
    found = made.untuned_over_tuned
    assert found is not None
    assert found["problems"] == 2
    assert json.loads((tmp_path / "r.json").read_text())["untuned_over_tuned"] == found
    ratio = f"{found['geometric_mean']:.3f}"
    assert f"An untuned call takes {ratio} times as long as a tuned one" in "\n".join(told)
    for name in ("r.json", "r.times.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / name).read_text()
    table = tables.Table.parsed((tmp_path / "r.times.json").read_text())
    assert table.head["untuned_over_tuned"] == found
    assert [r.file for r in record.records(tmp_path)] == [tmp_path / "r.json"]
    _shipped(tmp_path / "r.json", table, told)


def _shipped(path: Path, table: tables.Table, told: list[str]) -> None:
    """The times of a record come into the package, and calls use them."""
    op = get_op("matmul")
    spec = TensorSpec((32, 32), "bfloat16", "cuda")
    assert "measured" not in dispatch.choose(op, (spec, spec)).why
    assert run.ship(path, told.append) == 0
    assert f"nvidia-h200.json: {len(table.entries)} times" in told[-1]
    choice = dispatch.choose(op, (spec, spec))
    assert "measured" in choice.why
    own = [entry for entry in table.entries if entry.problem.startswith("matmul(")]
    assert choice.config == min(own, key=lambda entry: entry.seconds).config
    tables.forget()


def test_the_tune_command_tunes_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from kernelwright.bench.cli import app
    from kernelwright.bench.cuda import ahead

    compiled: list[str] = []
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ahead, "compiled", lambda jobs, tell: compiled.extend(job.name for job in jobs))
    words = ["tune", "all", "--device", "cuda", "--problem", "square-bf16-*", "--budget", "100"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert compiled == ["search square-bf16-32"]
    assert "square-bf16-32 on NVIDIA H200 (sm_90): " in done.output
    assert "0 of them known before" in done.output
    known = tuning.default_cache().find(
        "matmul(bf16[32/16,32/16]@cuda, bf16[32/16,32/16]@cuda, bf16[32/16,32/16]@cuda) "
        "on NVIDIA H200 (sm_90)",
        1,
    )
    assert len(known) > 1
    again = CliRunner().invoke(app, words)
    assert f"{len(known)} of them known before" in again.output
    nothing = CliRunner().invoke(app, ["tune", "all", "--device", "cuda", "--problem", "none-*"])
    assert nothing.exit_code == 2
    assert "nothing matches" in nothing.output


def test_a_proof_tries_every_kernel_on_every_sample(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    job = Job("proof", "proof toy float32", op="toy", dtype="float32")
    with toy_cuda.toy_on_cuda():
        assert timed(job, place)["checked"] == 1
        assert timed(Job("proof", "p", op="toy", dtype="float16"), place)["checked"] == 0
    with toy_cuda.toy_on_cuda(toy_cuda.bind_add(toy_cuda.add_without_the_last)):
        result = timed(job, place)
    assert result["status"] == "wrong"
    assert "toy/toy_cuda/add" in result["wrong"][0]


def test_calls_of_many_elements_are_checked_in_parts(place: Place) -> None:
    result = timed(Job("wide", "wide"), place)
    assert result["status"] == "right", result
    assert result["checked"] == 4


def test_a_run_keeps_going_when_a_worker_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives = iter([3, 70, 0])

    def spawn(orders: dict[str, Any], results: Path, seconds: float) -> int:
        code = next(lives)
        with results.open("a") as stream:
            for place, name in enumerate(orders["names"]):
                stream.write(json.dumps({"begin": name}) + "\n")
                if code and place == 3:
                    return code
                result = {"status": "right", "checked": 1}
                if name.startswith("race"):
                    result |= {"ratio": 1.25, "ours_s": 1e-3, "theirs_s": 1.25e-3, "flops": 1e9, "bytes": 1e6}
                    result |= {"kernel": "gone", "config": {}, "codes": [{"source": "x"}]}
                stream.write(json.dumps({"name": name, "result": result}) + "\n")
        return code

    monkeypatch.setattr(run, "sanitized", lambda suite, tell, until: {"status": "clean", "text": "0 errors"})
    told: list[str] = []
    made = run.run(run.Wanted("all", True, json=tmp_path / "r.json", seed=3), told.append, spawn, tmp_path)
    assert made.status == "complete"
    failed = [name for name, result in made.results.items() if result["status"] == "failed"]
    assert len(failed) == 2
    assert "ended the worker (exit code 3)" in made.results[failed[0]]["message"]
    assert run.exit_code(made) == 4
    text = "\n".join(told)
    assert "| square-bf16 | 1 | 1.25 | 1.25 | 1 | 1 |" in text
    loaded = record.Record.load(tmp_path / "r.json")
    assert loaded.results == made.results
    assert loaded.head["device"] == "NVIDIA H200"
    assert record.stale(loaded)["gone"]
    assert "Stale, the kernel has changed since" in record.table([loaded])


def test_a_run_that_is_interrupted_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(orders: dict[str, Any], results: Path, seconds: float) -> int:
        first, second, *_ = orders["names"]
        lines = [{"begin": first}, {"name": first, "result": {"status": "right"}}, {"begin": second}]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(run.Wanted(json=tmp_path / "r.json"), lambda line: None, spawn, tmp_path)
    kept = record.Record.load(tmp_path / "r.json")
    assert kept.status == "interrupted"
    assert list(kept.results) == ["copy"]
    _resumed(tmp_path / "r.json", [job.name for job in jobs("all", False)][1:])


def _resumed(path: Path, left: list[str]) -> None:
    """A record is gone on with by the jobs that it has not, and by a run of the same kind alone."""
    orders: list[str] = []

    def spawn(given: dict[str, Any], results: Path, seconds: float) -> int:
        orders.extend(given["names"])
        lines = [{"name": name, "result": {"status": "right"}} for name in given["names"]]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    made = run.run(run.Wanted("quick", resume=path), lambda line: None, spawn)
    assert orders == left
    assert list(made.results) == ["copy", *left]
    assert record.Record.load(path).status == "complete"
    made.head["device"] = "NVIDIA A100"
    made.save(path)
    with pytest.raises(record.RecordError, match="'NVIDIA A100', and here it is 'NVIDIA H200'"):
        run.run(run.Wanted(resume=path), lambda line: None, spawn)


def test_what_the_sanitizer_finds_is_wrong() -> None:
    made = record.Record({}, {"wide": {"status": "right"}})
    assert run.exit_code(made) == 0
    made.sanitizer = {"status": "errors", "text": "1 error", "calls": 3}
    assert run.exit_code(made) == 4


def test_a_worker_writes_a_line_before_and_after_each_job(tmp_path: Path, place: Place) -> None:
    orders = {"suite": "all", "check": True, "seed": 1, "names": ["wide"], "until": 9e12}
    assert worker.main(orders, tmp_path / "lines", place) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert lines[0] == {"begin": "wide"}
    assert lines[1]["result"]["status"] == "right"
    assert worker.main(orders | {"until": 0}, tmp_path / "none", place) == 0
    assert (tmp_path / "none").read_text() == ""


def test_operand_sets_together_outgrow_the_cache() -> None:
    assert sets_for(10**9, 50 * 2**20) == 1
    assert sets_for(50 * 2**20, 50 * 2**20) == 3
    assert sets_for(1, 50 * 2**20) == 8
    assert device.facts().l2_bytes == 50 * 2**20
