"""Records of runs on a GPU: the documents' tables are made of them, and stale ones are told."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from kernelwright.bench.cuda import ahead, run  # noqa: E402
from kernelwright.bench.cuda import record as records  # noqa: E402
from kernelwright.bench.cuda.cases.job import specs_on  # noqa: E402
from kernelwright.bench.cuda.cases.jobs import (  # noqa: E402
    DTYPES,
    FAMILIES,
    GENERATED,
    NOT_RACED,
    cuda_ops,
    jobs,
    races,
    searches,
)
from kernelwright.bench.cuda.record import NONE_YET, Record, RecordError  # noqa: E402
from kernelwright.kernels import dispatch, tuning  # noqa: E402
from kernelwright.kernels.cache import Entry  # noqa: E402
from kernelwright.kernels.cuda import device, tables  # noqa: E402
from kernelwright.kernels.cuda.build import build_launcher  # noqa: E402
from kernelwright.kernels.cuda.code_launch import CodeLaunch  # noqa: E402
from kernelwright.kernels.op import get_op, ops  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.settings import using  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HEAD = {
    "device": "NVIDIA H200",
    "capability": 90,
    "driver": "580",
    "versions": {"torch": "2.11"},
    "commit": "0" * 40,
    "started": "2026-01-01T00:00:00+00:00",
    "suite": "all",
    "check": True,
}


def test_the_tables_in_the_documents_are_those_of_the_records() -> None:
    made = records.table(records.records())
    for name in records.DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        assert records.with_table(text, made, "table") == text, f"write: make tables ({name} is behind)"


def test_stale_records_are_told() -> None:
    for record in records.records():
        old = records.stale(record)
        if old:
            names = "; ".join(f"{kernel}: {', '.join(races)}" for kernel, races in old.items())
            warnings.warn(f"{record.file} speaks of older kernels ({names}); run make gpu", stacklevel=1)


def test_stale_times_that_are_shipped_are_told() -> None:
    sources = {k.id: k.source_digest() for name in cuda_ops() for k in kernels_for(name, "cuda")}
    for table in tables.tables():
        old = {entry.kernel for entry in table.entries if sources.get(entry.kernel) != entry.source}
        if old:
            warnings.warn(
                f"{table.file} has times of older kernels ({', '.join(sorted(old))}); run make gpu",
                stacklevel=1,
            )


def test_without_a_record_the_tables_say_so() -> None:
    assert records.table([]) == NONE_YET
    assert records.table([Record(HEAD, {"wide": {"status": "right"}})]) == NONE_YET


def _made_record(names: int = 3) -> Record:
    """A record as a run today would write it, but for the times."""
    results: dict[str, dict[str, Any]] = {}
    for job in [job for job in jobs("all", False) if job.kind == "race"][:names]:
        problem = job.problem
        assert problem is not None
        with device.assume(90), using(extra_error=job.extra_error):
            specs = specs_on(problem)
            choice = dispatch.choose(problem.operation, specs, problem.attrs)
            assert choice.kernel is not None
            sources = choice.bind().sources()  # type: ignore[attr-defined]
        results[job.name] = {
            "status": "right",
            "kernel": choice.kernel.id,
            "config": choice.config,
            "codes": [{"source": source} for source in sources],
            "ratio": 1.5,
            "ours_s": 1e-3,
            "flops": problem.cost.flops,
            "bytes": problem.cost.bytes,
        }
    return Record(HEAD, results, status="complete")


def test_a_record_is_stale_when_a_kernel_has_changed() -> None:
    record = _made_record()
    assert records.stale(record) == {}
    first = next(iter(record.results))
    record.results[first]["codes"][0]["source"] = "of another day"
    assert records.stale(record) == {record.results[first]["kernel"]: [first]}
    assert "Stale, the kernel has changed since: 1 of its races" in records.table([record])


def test_a_table_has_a_line_for_each_group() -> None:
    text = records.table([_made_record()])
    assert "NVIDIA H200, driver 580, torch 2.11; commit 000000000000, 2026-01-01 (complete)" in text
    assert "| square-bf16 | 3 | 1.50 | 1.50 |" in text
    made = _made_record()
    made.results["copy"] = {"status": "right", "bytes_s": 4e12}
    rate = max(r["bytes"] / r["ours_s"] for r in made.results.values() if "bytes" in r)
    assert f" {rate / 4e12:.0%} |" in records.table([made])
    assert "None of these races ran a configuration that had been tuned before the run." in text


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(RecordError, match="schema 2; run `make gpu`"):
        records.records(tmp_path)
    with pytest.raises(RecordError, match="has no line"):
        records.with_table("no marks", "t", "table")


def test_every_race_of_the_suite_has_a_kernel_on_each_chip() -> None:
    for chip in device.TARGETS:
        for problem, extra in races("all"):
            if problem.op == "scaled_matmul" and chip < 90:
                continue  # float8 came with Hopper
            with device.assume(chip), using(extra_error=extra):
                specs = specs_on(problem)
                choice = dispatch.choose(problem.operation, specs, problem.attrs)
                assert choice.kernel is not None, f"{problem} on sm_{chip}"


def test_what_jobs_launch_is_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    launchers: list[None] = []
    read: list[int] = []
    monkeypatch.setattr("kernelwright.kernels.cuda.build.compile_variant", lambda v, chip: made.append(chip))
    monkeypatch.setattr("kernelwright.kernels.cuda.build.build_launcher", launchers.append)
    monkeypatch.setattr("kernelwright.kernels.cuda.aot.read", lambda variant, chip: read.append(chip))
    monkeypatch.setattr("kernelwright.kernels.cuda.nvrtc.compiled", lambda code, arch: made.append(90))
    monkeypatch.setattr(CodeLaunch, "codes", lambda self, chip: read.append(chip) or [])
    chip = device.chip(90)
    compiling: dict[str, int] = {}
    for job in jobs("quick", True):
        if job.kind == "proof" and (job.op, job.dtype) not in _LOOKED_AT:
            continue
        for part in range(4 if job.kind == "search" else 1):
            before = len(made)
            ahead.compile_job(job, part, chip)
            compiling[job.name] = compiling.get(job.name, 0) + (len(made) - before)
    raced = [count for name, count in compiling.items() if name.startswith("race ")]
    assert sum(raced) > 8
    searched = {
        name.removeprefix("search "): n for name, n in compiling.items() if name.startswith("search ")
    }
    assert searched
    for name, count in searched.items():  # every configuration
        assert count > compiling[f"race {name}"]
    assert all(compiling[f"proof {op} {dtype}"] for op, dtype in _LOOKED_AT)
    assert set(made) == set(read) == {90}
    assert launchers  # which Triton 3.6 compiles too, for each signature


_LOOKED_AT = (
    *(("matmul", "bfloat16"), ("softmax", "float32"), ("add", "float32"), ("lstm", "float32")),
    ("lstm_grad", "float32"),  # several launches in a chain
)


def test_a_launcher_is_compiled_ahead_where_each_signature_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = pytest.importorskip("triton.backends.nvidia.driver")
    made: list[tuple[str, str]] = []
    monkeypatch.setattr(driver, "CudaLauncher", lambda src, metadata: made.append((src, metadata)))
    kernel = SimpleNamespace(src="source", metadata="metadata")
    monkeypatch.delattr(driver, "make_launcher", raising=False)
    build_launcher(kernel)
    assert not made
    monkeypatch.setattr(driver, "make_launcher", None, raising=False)
    build_launcher(kernel)
    assert made == [("source", "metadata")]


def test_every_op_that_has_cuda_kernels_is_proven_in_the_dtypes_they_take() -> None:
    kernels = {op.name: kernels_for(op.name, "cuda") for op in ops()}
    taken = {(name, dtype) for name, found in kernels.items() for kernel in found for dtype in kernel.dtypes}
    assert {dtype for _, dtype in taken} <= set(DTYPES)
    proven = {(job.op, job.dtype) for job in jobs("all", True) if job.kind == "proof"}
    generated = {pair for pair in taken if get_op(pair[0]).family in GENERATED}
    assert taken - generated <= proven
    assert {name for name, _ in generated} <= {name for name, _ in proven}


def test_every_family_with_cuda_kernels_is_raced() -> None:
    assert {get_op(name).family for name in cuda_ops()} - NOT_RACED == set(FAMILIES)


def test_the_suite_has_what_speed_is_promised_for() -> None:
    groups = {problem.group for problem, _ in races("all")}
    for batch in (32, 256):
        assert {f"resnet-{batch}", f"resnet-dx-{batch}", f"resnet-dw-{batch}"} <= groups
    assert {"deepbench-conv", "deepbench-conv-dx", "deepbench-conv-dw"} <= groups
    assert {"fp8", "square-tf32", "square-bf16", "square-fp16", "decode", "depthwise", "deepbench"} <= groups
    sizes = [p.inputs[0].shape[0] for p, _ in races("all") if p.group == "square-bf16" and p.inputs[0]]
    assert (min(sizes), max(sizes)) == (1024, 16384)


def test_what_is_tuned_is_a_part_of_what_is_raced() -> None:
    for suite in ("all", "quick"):
        raced = {problem.name for problem, _ in races(suite)}
        tuned = [problem.name for problem, _ in searches(suite)]
        assert set(tuned) <= raced
        assert len(tuned) == len(set(tuned))
    products = {"scaled_matmul", "matmul", "linear", "conv", "conv_input_grad", "conv_weight_grad"}
    assert products | {"attention", "attention_grad"} == {problem.op for problem, _ in searches("all")}


def test_jobs_have_names_of_their_own() -> None:
    for suite in ("all", "quick"):
        names = [job.name for job in jobs(suite, True)]
        assert len(names) == len(set(names))


def _tuned_record(tmp_path: Path, losses: tuple[float, ...] = (1.0, 1.21)) -> Record:
    """A record whose searches found a time for each configuration of a call."""
    op, spec = get_op("matmul"), TensorSpec((4096, 4096), "bfloat16", "cuda")
    with device.assume(90):
        choice = dispatch.choose(op, (spec, spec))
        problem = tuning.key_of(op, choice.specs, {})
        assert choice.kernel is not None
        configs = choice.kernel.configurations(choice.specs, {}, 1)
    entries = [
        asdict(Entry(choice.kernel.id, choice.kernel.source_digest(), problem, 1, config, 1e-3 / (place + 1)))
        for place, config in enumerate(configs)
    ]
    results: dict[str, Any] = {
        f"search {place}": {"status": "right", "loss": loss, "entries": [] if place else entries}
        for place, loss in enumerate(losses)
    }
    record = Record(HEAD, results, status="complete")
    record.save(tmp_path / "r.json")
    return record


def test_a_record_says_how_far_untuned_calls_are_from_tuned_ones(tmp_path: Path) -> None:
    record = _tuned_record(tmp_path)
    found = record.untuned_over_tuned
    assert found == {
        "problems": 2,
        "geometric_mean": pytest.approx(1.1),
        "worst": 1.21,
        "worst_of": "search 1",
    }
    told = records.table([_made_record(), Record(HEAD, _made_record().results | record.results)])
    assert "An untuned call takes 1.100 times as long as a tuned one, in the geometric mean over 2" in told
    assert Record(HEAD, {}).untuned_over_tuned is None


def test_times_of_a_record_are_shipped_but_for_those_of_older_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "tables")
    record = _tuned_record(tmp_path)
    entries = record.results["search 0"]["entries"]
    entries[0]["source"] = "of another day"
    record.save(tmp_path / "r.json")
    assert run.main(["--ship", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr().out
    assert f"1 of {len(entries)} times are left out: their kernels have changed since" in said
    (table,) = tables.tables()
    assert len(table.entries) == len(entries) - 1
    assert table.head["untuned_over_tuned"]["problems"] == 2
    with device.assume(90):
        spec = TensorSpec((4000, 4096), "bfloat16", "cuda")
        weight = TensorSpec((4096, 4096), "bfloat16", "cuda")
        choice = dispatch.choose(get_op("matmul"), (spec, weight))
    assert choice.config == entries[-1]["config"]  # the fastest in the record, for a length of its class
    tables.forget()


def test_where_there_is_nothing_to_ship_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "records", list)
    assert run.main(["--ship"]) == 1
    assert "no record has times to ship" in capsys.readouterr().out
    Record(HEAD, {}).save(tmp_path / "r.json")
    assert not records.times_beside(tmp_path / "r.json").exists()
    assert run.main(["--ship", str(tmp_path / "r.json")]) == 1
    assert run.main(["--ship", str(tmp_path / "missing.json")]) == 2
