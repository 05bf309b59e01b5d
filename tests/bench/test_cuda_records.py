"""Records of runs on a GPU: the documents' tables are made of them, and stale ones are told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from kernelwright.bench.cuda import record as records  # noqa: E402
from kernelwright.bench.cuda import run  # noqa: E402
from kernelwright.bench.cuda.cases import jobs, races  # noqa: E402
from kernelwright.bench.cuda.record import NONE_YET, Record, RecordError  # noqa: E402
from kernelwright.kernels import dispatch  # noqa: E402
from kernelwright.kernels.cuda import device, tables  # noqa: E402
from kernelwright.kernels.cuda.check import moved  # noqa: E402
from kernelwright.kernels.settings import using  # noqa: E402

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
            specs = [moved(spec) for spec in problem.specs]
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


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(RecordError, match="schema 1; run `make gpu`"):
        records.records(tmp_path)
    with pytest.raises(RecordError, match="has no line"):
        records.with_table("no marks", "t", "table")


def test_every_race_of_the_suite_has_a_kernel_on_each_chip() -> None:
    for chip in device.TARGETS:
        for problem, extra in races("all"):
            if problem.op == "scaled_matmul" and chip < 90:
                continue  # float8 came with Hopper
            with device.assume(chip), using(extra_error=extra):
                specs = [moved(spec) for spec in problem.specs]
                choice = dispatch.choose(problem.operation, specs, problem.attrs)
                assert choice.kernel is not None, f"{problem} on sm_{chip}"


def test_what_jobs_launch_is_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr("kernelwright.kernels.cuda.build.compile_variant", lambda v, chip: made.append(chip))
    monkeypatch.setattr("kernelwright.kernels.cuda.aot.read", lambda variant, chip: made.append(chip))
    chip = device.chip(90)
    raced = 0
    for job in jobs("quick", True):
        before = len(made)
        run.compile_job(job, 0, chip)
        raced += job.kind == "race" and len(made) > before
    assert raced > 8  # CUDA C is compiled in a way of its own
    assert set(made) == {90}


def test_jobs_have_names_of_their_own() -> None:
    for suite in ("all", "quick"):
        names = [job.name for job in jobs(suite, True)]
        assert len(names) == len(set(names))


def test_shipped_times_are_found_by_problem_and_gpu(tmp_path: Path) -> None:
    from kernelwright.kernels.cache import Entry

    entry = Entry("matmul/x/y", "digest", "matmul(...) on NVIDIA H200", 1, {"bm": 64}, 1e-3, 5, "today")
    path = tables.write("NVIDIA H200", [entry], tmp_path)
    assert path.name == "nvidia-h200.json"
    assert tables.find(entry.problem, tmp_path) == [entry]
    assert tables.find("matmul(...) on NVIDIA A100", tmp_path) == []
    assert list(tables.FOLDER.glob("*.json")) == []  # none is shipped before a record is kept
