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

from kernelwright.bench.cuda import cases, record, run, worker  # noqa: E402
from kernelwright.bench.cuda.cases import Job, conv, jobs, scaled, squares  # noqa: E402
from kernelwright.bench.cuda.contest import HostClock, host_seconds, sets_for  # noqa: E402
from kernelwright.bench.cuda.work import Place, timed  # noqa: E402
from kernelwright.bench.problems.problem import Operand, Problem, matmul  # noqa: E402
from kernelwright.kernels import registry  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402

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
    with standing_in():
        for op in cases.FAMILIES:  # CUDA C is compiled, and does not run here
            for kernel in registry.kernels_for(op, "cuda"):
                if kernel.language != "triton":
                    registry.unregister(kernel)
        yield


def _place() -> Place:
    return Place(HostClock(), "cpu", 7)


def _named(name: str) -> Job:
    return next(job for job in jobs("all", True) if job.name == name)


@pytest.mark.parametrize("name", [p.name for p, _ in tiny() if p.op != "scaled_matmul"])
def test_a_race_judges_ours_and_times_both(name: str) -> None:
    result = timed(_named(f"race {name}"), _place())
    assert result["status"] == "right", result
    assert result["ratio"] > 0
    assert result["ours_s"] > 0
    assert result["judged"]["norm"] <= result["judged"]["allowed"]
    assert result["vendor"]["ok"]
    assert result["sets"] == 2


def _off_by_one(attrs: object, tensors: Any, seed: int) -> Any:
    a, b = (tensor.double() for tensor in tensors)
    return a @ b + 1, a.abs() @ b.abs(), lambda result: result


def test_a_wrong_result_is_found_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.bench.cuda import judge

    monkeypatch.setitem(judge._TRUTHS, "matmul", _off_by_one)
    result = timed(_named("race square-bf16-32"), _place())
    assert result["status"] == "wrong"
    assert "ratio" not in result


def test_a_launch_is_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelwright.bench.cuda.work.host_seconds", partial(host_seconds, rounds=1))
    result = timed(Job("launch", "launch"), _place())
    assert result["status"] == "right", result
    assert min(result["launch_s"], result["call_s"], result["torch_s"]) > 0


def test_a_search_compares_the_choice_with_all_others() -> None:
    result = timed(_named("search square-bf16-32"), _place())
    assert result["status"] == "right", result
    assert result["loss"] >= 1
    assert len(result["times"]) == len(result["entries"]) > 1
    assert all(entry["problem"].endswith(" on NVIDIA H200") for entry in result["entries"])


def test_a_proof_tries_every_kernel_on_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("proof", "proof toy float32", op="toy", dtype="float32")
    with toy_cuda.toy_on_cuda():
        assert timed(job, _place())["checked"] == 1
        assert timed(Job("proof", "p", op="toy", dtype="float16"), _place())["checked"] == 0
    with toy_cuda.toy_on_cuda(toy_cuda.bind_add(toy_cuda.add_without_the_last)):
        result = timed(job, _place())
    assert result["status"] == "wrong"
    assert "toy/toy_cuda/add" in result["wrong"][0]


def test_wide_products_are_checked_at_some_rows() -> None:
    result = timed(Job("wide", "wide"), _place())
    assert result["status"] == "right", result
    assert result["checked"] == 2


def test_a_run_keeps_going_when_a_worker_dies(tmp_path: Path) -> None:
    lives = iter([3, 70, 0])

    def spawn(orders: dict[str, Any], results: Path, seconds: float) -> int:
        code = next(lives)
        with results.open("a") as stream:
            for place, name in enumerate(orders["names"]):
                stream.write(json.dumps({"begin": name}) + "\n")
                if code and place == 2:
                    return code
                result = {"status": "right", "checked": 1}
                if name.startswith("race"):
                    result |= {"ratio": 1.25, "ours_s": 1e-3, "theirs_s": 1.25e-3, "flops": 1e9, "bytes": 1e6}
                    result |= {"kernel": "gone", "config": {}, "codes": [{"source": "x"}]}
                stream.write(json.dumps({"name": name, "result": result}) + "\n")
        return code

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


def test_a_worker_writes_a_line_before_and_after_each_job(tmp_path: Path) -> None:
    orders = {"suite": "all", "check": True, "seed": 1, "names": ["wide"], "until": 9e12}
    assert worker.main(orders, tmp_path / "lines", _place()) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert lines[0] == {"begin": "wide"}
    assert lines[1]["result"]["status"] == "right"
    assert worker.main(orders | {"until": 0}, tmp_path / "none", _place()) == 0
    assert (tmp_path / "none").read_text() == ""


def test_operand_sets_together_outgrow_the_cache() -> None:
    assert sets_for(10**9, 50 * 2**20) == 1
    assert sets_for(50 * 2**20, 50 * 2**20) == 3
    assert sets_for(1, 50 * 2**20) == 8
    assert device.facts().l2_bytes == 50 * 2**20
