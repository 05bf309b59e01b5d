"""compute-sanitizer over the kernels, as they compute their ops' samples: the small cases.

It watches every access to memory, which makes a kernel many times slower; so it is given some seconds, and
what it says is of as many calls as were made in them. Where it is not installed, the record says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ahead import Tell

TOOL = "compute-sanitizer"
PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
SANITIZED = (
    *("proof matmul bfloat16", "proof conv bfloat16", "proof conv_weight_grad bfloat16"),
    *("proof attention bfloat16", "proof lstm bfloat16", "proof lstm_grad float32", "proof softmax float32"),
    *("proof sum float32", "proof index_sum float32", "proof max_pool_grad float32", "proof add float32"),
)
SECONDS, LEAST = 75.0, 5.0
_SHARE = 0.6  # of the time, after which no call is begun: leaving takes its time too
_FOUND = 9  # the exit code that it is told to give when it has found something


def found() -> str | None:
    """Where the tool is; None where it is not installed."""
    return shutil.which(TOOL) or next(
        (str(Path(place) / TOOL) for place in PLACES if (Path(place) / TOOL).is_file()), None
    )


def sanitized(suite: str, tell: Tell, until: float) -> dict[str, Any]:
    """What the tool says of the kernels.

    Args:
        suite: of the run.
        tell: told the outcome in a line.
        until: when it has to be done, by `time.time`.

    Returns:
        `status` ("clean", "errors", "failed", "not run" or "out of time"), `text` and `calls`.
    """
    tool, seconds = found(), min(SECONDS, until - time.time())
    if tool is None:
        said = _said("not run", f"{TOOL} is not installed")
    elif seconds < LEAST:
        said = _said("not run", "there was no time left")
    else:
        said = _run(tool, suite, seconds)
    tell(f"{TOOL}: {said['status']}: {said['text']}")
    return said


def _said(status: str, text: str, calls: int = 0) -> dict[str, Any]:
    return {"status": status, "text": text, "calls": calls}


def _run(tool: str, suite: str, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        orders, lines = Path(folder) / "orders", Path(folder) / "results"
        until = time.time() + _SHARE * seconds
        wanted = {"suite": suite, "check": True, "seed": 1, "names": SANITIZED, "until": until}
        orders.write_text(json.dumps(wanted), "utf-8")
        command = [tool, "--tool", "memcheck", "--error-exitcode", str(_FOUND), sys.executable]
        command += ["-m", "kernelwright.bench.cuda.worker", str(orders), str(lines)]
        # Memory from the driver for each tensor: what lies behind one is then nobody's.
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            return _said("out of time", f"after {seconds:.0f} s it had said nothing")
        except OSError as error:
            return _said("failed", str(error))
        results = _results(lines)
    calls = sum(result.get("checked", 0) for result in results.values())
    marks = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line or "Invalid" in line]
    text = "; ".join(line.strip("= ") for line in marks[-4:]) or _last_line(done)
    wrong = [name for name, result in results.items() if result["status"] != "right"]
    if done.returncode == _FOUND:
        return _said("errors", text, calls)
    if done.returncode or not calls or wrong:
        why = f"{', '.join(wrong)} not right; " if wrong else ""
        return _said("failed", f"{why}exit code {done.returncode} after {calls} calls: {text}", calls)
    return _said("clean", f"{text}; {calls} calls", calls)


def _results(lines: Path) -> Mapping[str, dict[str, Any]]:
    """What the worker has written."""
    if not lines.exists():
        return {}
    read = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    return {line["name"]: line["result"] for line in read if "name" in line}


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["it said nothing"])[-1]
