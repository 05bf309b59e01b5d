"""Plans: tables of steps, times on request, strided arguments, and memory that is theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.passes import Switches
from kernelwright.kernels import registry

PROFILED = """
import numpy as np
import kernelwright as kw
f = kw.compile(lambda x, w: kw.relu(x @ w).sum(0))
for _ in range(3):
    f(kw.array(np.ones((64, 64), np.float32)), kw.array(np.ones((64, 64), np.float32)))
print(f.plan)
"""


FORKING = """
import os, threading
import numpy as np
import kernelwright as kw
f = kw.compile(lambda x: kw.tanh(x @ x))
x = kw.array(np.ones((300, 300), np.float32))
f(x)
done = []
other = threading.Thread(target=lambda: [f(x) for _ in iter(lambda: bool(done), True)])
other.start()
failed = 0
for _ in range(5):
    child = os.fork()
    if child == 0:
        f(x)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
done.append(1)
other.join()
os._exit(failed)
"""


def some(*shape: int, seed: int = 0) -> kw.Array:
    return kw.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def run_profiled(value: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KERNELWRIGHT_PROFILE": value}
    command = [sys.executable, "-c", PROFILED]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_steps_are_timed_and_traced_on_request(tmp_path: Path) -> None:
    done = run_profiled(str(tmp_path / "trace.json"))
    assert done.returncode == 0, done.stderr
    head, *rows, steps, total = done.stdout.splitlines()
    assert head.split() == ["step", "kernel", "result", "to", "kFLOP", "KiB", "us", "roof", "line"]
    assert all("%" in row for row in rows)
    assert "in one compiled call" in steps
    assert "add up to" in total
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == 3 * len(rows)
    assert all(event["dur"] > 0 and event["ph"] == "X" for event in events)


def test_a_trace_in_no_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run_profiled(str(tmp_path / "missing" / "trace.json"))
    assert done.returncode != 0
    assert "there is no folder" in done.stderr


def test_strided_and_broadcast_arguments_have_plans_of_their_own() -> None:
    f = kw.compile(lambda x, y: x * 2 + y)
    base, y = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32), some(3, 4, seed=1)
    views = [
        base[::2, ::2],
        base[:3, :4],
        base[2::-1, 3::-1],
        base[:4, :3].T,
        np.broadcast_to(base[0, :4], (3, 4)),
    ]
    for view in views:
        np.testing.assert_allclose(np.asarray(f(view, y)), view * 2 + np.asarray(y), rtol=1e-6)
    assert f.traces == len(views)


def test_calls_do_not_see_each_other() -> None:
    f = kw.compile(lambda x: (kw.exp(x) @ x, x + 1))
    inputs = [some(32, 32, seed=i) for i in range(5)]
    results = [f(x) for x in inputs]
    for x, (y, z) in zip(inputs, results, strict=True):
        np.testing.assert_allclose(np.asarray(y), np.exp(np.asarray(x)) @ np.asarray(x), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(z), np.asarray(x) + 1)


def test_a_plan_is_made_anew_for_other_settings_and_kernels() -> None:
    f = kw.compile(lambda x: x @ x)
    x = some(16, 16)
    f(x)
    first = f.plan
    f(x)
    assert f.plan is first
    with kw.using(backend="reference"):
        f(x)
        assert "matmul/reference" in str(f.plan)
    f(x)
    assert "matmul/reference" not in str(f.plan)


def test_the_arena_of_a_training_step_is_as_small_as_lifetimes_allow() -> None:
    def loss(ws: Any, x: kw.Array) -> kw.Array:
        for w in ws:
            x = kw.tanh(x @ w)
        return (x * x).mean()

    def step(ws: Any, x: kw.Array) -> Any:
        value, grads = kw.value_and_grad(loss)(ws, x)
        return [w - 0.1 * g for w, g in zip(ws, grads, strict=True)], value

    f = kw.compile(step, donate=0)
    ws, _ = f([some(64, 64, seed=i) for i in range(4)], some(32, 64, seed=9))
    assert f.plan.arena_bytes <= 1.05 * f.plan.arena_lower_bound
    assert not f.plan.low.new or sum(b.nbytes for b in f.plan.low.new) < 64 * 64 * 4, (
        "parameters stay in place"
    )
    assert all(np.isfinite(np.asarray(w)).all() for w in ws)


def test_a_kernel_that_also_computes_in_python_is_not_taken_for_its_launches_alone() -> None:
    def wanted(x: Any) -> Any:
        return x - np.log(np.exp(x).sum(-1, keepdims=True)) + 1

    def bound(specs: Any, attrs: Any, config: Any, threads: int) -> Any:
        def launch(x: Any, out: Any) -> None:
            powers = np.asarray(kw.exp(kw.asarray(x)))
            np.copyto(out, x - np.log(powers.sum(-1, keepdims=True)))

        return launch

    before = registry.registered()
    kw.kernel("log_softmax", rank=50, binds=True)(bound)
    (declared,) = registry.registered() - before
    try:
        f = kw.compile(lambda x: kw.log_softmax(x, -1) + 1, switches=Switches.none())
        x = some(3, 4)
        with np.errstate(all="ignore"):  # what is written down is tried on memory without numbers
            np.testing.assert_allclose(np.asarray(f(x)), wanted(np.asarray(x)), rtol=1e-5)
        assert "1 of them through Python" in str(f.plan)
    finally:
        registry.unregister(declared)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_in_the_middle_of_a_plan_runs_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], check=False, timeout=120)
    assert done.returncode == 0
