"""A kernel from outside the package, as the README shows it: found, explained, proven, raced; or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from project_tree import ROOT

import kernelwright as kw
from kernelwright.kernels import registry
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample, TensorSpec, get_op

MINE = ROOT / "examples" / "my_matmul.py"
WRONG = ROOT / "examples" / "wrong_matmul.py"


@pytest.fixture
def mine() -> Iterator[Kernel]:
    """The README's kernel, registered for one test."""
    yield from registered(MINE)


@pytest.fixture
def wrong() -> Iterator[Kernel]:
    """The kernel with a mistake, registered for one test."""
    yield from registered(WRONG)


def registered(path: Path) -> Iterator[Kernel]:
    (kernel,) = registry.load_file(path)
    yield kernel
    registry.unregister(kernel)
    # Forget that the file was run, so that the next test that loads it registers it again.
    registry.discovery._loaded_files.pop(str(path), None)


def taken_samples(kernel: Kernel, dtype: str) -> Iterator[Sample]:
    """The samples of the op that the kernel says it can run."""
    op = get_op(kernel.op)
    for sample in op.samples(np.random.default_rng(0), dtype):
        specs = tuple(TensorSpec.of(array) for array in sample.inputs)
        if kernel.why_not((*specs, *op.infer(specs, **sample.attrs)), sample.attrs) is None:
            yield sample


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `kernelwright` with these words."""
    main = "from kernelwright.bench.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", main, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_file_with_a_kernel_is_registered(mine: Kernel) -> None:
    assert mine.id == "matmul/my_matmul/by_rows"
    assert mine in registry.kernels_for("matmul", "cpu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_my_kernel_survives_the_samples(mine: Kernel, dtype: str) -> None:
    verdicts = [(sample, check_kernel(mine, sample)) for sample in taken_samples(mine, dtype)]
    assert len(verdicts) > 20
    assert not [f"{sample!r}: {verdict.text}" for sample, verdict in verdicts if not verdict.ok]


def test_my_kernel_computes_what_is_asked_of_it_by_name(mine: Kernel) -> None:
    a = np.random.default_rng(1).standard_normal((33, 70), dtype=np.float32)
    b = np.random.default_rng(2).standard_normal((70, 1029), dtype=np.float32)
    with kw.using(backend="by_rows", strict=True):
        result = np.asarray(kw.matmul(a, b))
    np.testing.assert_allclose(result, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-4)


def test_a_call_that_my_kernel_does_not_take_is_refused_with_its_reason(mine: Kernel) -> None:
    batch = np.ones((2, 3, 3), np.float32)
    with (
        kw.using(backend="by_rows", strict=True),
        pytest.raises(kw.errors.NoKernelError, match="takes two matrices, no vectors and no batches"),
    ):
        kw.matmul(batch, batch)


def test_explain_names_my_kernel_and_its_reason(mine: Kernel) -> None:
    a = np.ones((8, 5000), np.float32)
    text = str(kw.explain(kw.matmul, a, a.T))
    assert "matmul/my_matmul/by_rows" in text
    assert "sums 5000 terms one after the other" in text


def test_the_environment_announces_my_kernel_to_the_command_line() -> None:
    done = command("explain", "matmul", "8x8", "8x8", KERNELWRIGHT_KERNELS=str(MINE))
    assert done.returncode == 0, done.stderr
    assert "matmul/my_matmul/by_rows" in done.stdout


def test_bench_proves_my_kernel_and_accepts_it(tmp_path: Path) -> None:
    results = tmp_path / "mine.json"
    done = bench(MINE, results)
    assert done.returncode == 0, done.stdout + done.stderr
    (case,) = json.loads(results.read_text())["results"]
    assert (case["kernel"], case["status"]) == ("matmul/my_matmul/by_rows", "checked")


def test_bench_refuses_the_wrong_kernel_and_shows_its_error(tmp_path: Path) -> None:
    results = tmp_path / "wrong.json"
    done = bench(WRONG, results)
    assert done.returncode == 4, done.stdout + done.stderr
    (case,) = json.loads(results.read_text())["results"]
    assert (case["status"], case["races"]) == ("wrong", [])
    assert case["error"] > 100 * case["budget"]
    assert "forgets_the_last_term" in done.stdout
    assert case["message"].split()[0] in done.stdout


def bench(kernel: Path, results: Path) -> subprocess.CompletedProcess[str]:
    """Prove one kernel on one problem, without the races."""
    words = ["--kernel", str(kernel), "--problem", "square-96", "--threads", "1", "--check"]
    return command("bench", *words, "--json", str(results))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_wrong_kernel_fails_on_the_samples(wrong: Kernel, dtype: str) -> None:
    verdicts = [check_kernel(wrong, sample) for sample in taken_samples(wrong, dtype)]
    assert sum(not verdict.ok for verdict in verdicts) > len(verdicts) // 2


def test_the_quickstart_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "matmul/cpu_numba/" in done.stdout
