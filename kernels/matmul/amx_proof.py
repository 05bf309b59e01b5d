"""The proof that AMX kernels compute what they should on this machine, before any of them is chosen.

They were written without such a machine. So where a CPU has the tiles, the first call that could use them
runs a handful of products in a child process, which an illegal instruction may end, and holds the results
against float64 as the tests do. The verdict is kept in the cache directory, under the machine's fingerprint,
the source of the kernels and of the proof, and what compiles them; it is asked for once a process. A refusal
is shown by `explain` and `kernelwright doctor`. What the child compiles is in the cache for its parent.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

from ..atomic import write_atomically
from ..machine import fingerprint, tiles_problem, vector_bytes
from ..paths import cache_dir
from ..settings import AMX_VARIABLE, amx_from_environment

TIMEOUT_S = 300
PATIENCE_S = 24 * 3600
"""How long a proof that could not be ended (no memory, no time) is not tried again."""
# (m, k, n): less than a tile, an odd k, whole tiles, one row more, one less of k, several blocks of k and n.
PRODUCTS = ((1, 1, 1), (5, 33, 70), (16, 32, 64), (33, 64, 130), (97, 159, 31), (64, 1100, 600))
_NEEDS = ("+amx-tile", "+amx-bf16", "+avx512bf16")
_proving = False


def problem() -> str | None:
    """Why the kernels on AMX tiles don't run here; None when they do. The first time, it may take seconds."""
    reason = _machine_problem()
    return reason if reason is not None or _proving else _verdict()


def _machine_problem() -> str | None:
    """What is missing here that no proof could bring."""
    reason = tiles_problem()
    if reason is not None:
        return reason
    if not amx_from_environment():
        return f"is switched off by {AMX_VARIABLE}"
    if vector_bytes() != 64:
        return f"finishes its tiles by vectors of 64 bytes, not {vector_bytes()}"
    return _compiler_problem()


@cache
def _compiler_problem() -> str | None:
    """LLVM ends the whole process when it is asked for an instruction that it was told not to use."""
    missing = [flag[1:] for flag in _NEEDS if flag not in _target()[2].split(",")]
    return (
        f"needs a compiler that may use {', '.join(missing)}, which Numba was told not to"
        if missing
        else None
    )


def _target() -> tuple[str, str, str]:
    """Triple, CPU and features that Numba compiles for."""
    from numba.core.registry import cpu_target

    found: tuple[str, str, str] = cpu_target.target_context.codegen().magic_tuple()
    return found


@cache
def _verdict() -> str | None:
    path = verdict_file()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["until"] is None or time.time() < kept["until"]:
            return kept["problem"] if kept["problem"] is None else str(kept["problem"])
    final, reason = prove()
    with contextlib.suppress(OSError):
        until = None if final else time.time() + PATIENCE_S
        write_atomically(path, json.dumps({"problem": reason, "until": until}))
    return reason


def verdict_file() -> Path:
    """Where this machine's verdict on this source is kept."""
    import llvmlite
    import numba

    from ..cpu.provenance import source_digest

    facts = (source_digest(main), *_target(), numba.__version__, llvmlite.__version__)
    digest = sha256(repr(facts).encode()).hexdigest()[:16]
    return cache_dir() / f"amx-{fingerprint()}-{digest}.json"


def prove() -> tuple[bool, str | None]:
    """(whether that is the last word, what is wrong or None), from a child process."""
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        f"from {__name__} import main; raise SystemExit(main())"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(sys.path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return False, f"could not be proven on this machine: {type(error).__name__}: {error}"
    if done.returncode < 0:
        return True, f"failed its proof on this machine: {_signal_name(-done.returncode)} ended it"
    try:
        told = json.loads(done.stdout.splitlines()[-1])["problem"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return False, f"could not be proven on this machine: {last}"
    return True, None if told is None else f"failed its proof on this machine: {told}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main() -> int:
    """The child: runs the proof and prints {"problem": None or text} as its last line."""
    global _proving
    _proving = True
    print(json.dumps({"problem": what_is_wrong()}), flush=True)
    return 0


def what_is_wrong() -> str | None:
    """The first wrong product of the AMX kernels, in this process; None when all are right."""
    import numpy as np

    from ..accuracy import check_kernel
    from ..op import Sample
    from ..prepack import prepack
    from ..registry import kernels_for
    from ..spec import np_dtype
    from . import cpu_numba_amx
    from .op import LINEAR, MATMUL

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype("bfloat16"))

    ours = [
        kernel
        for op in (MATMUL, LINEAR)
        for kernel in kernels_for(op.name)
        if kernel.source_file == cpu_numba_amx.__file__
    ]
    for place, (m, k, n) in enumerate(PRODUCTS):
        x, w = draw(m, k), draw(n, k)
        packed = prepack("linear", w)
        calls = {
            "matmul": Sample("", (x, w.T)),
            "linear": Sample("", (x, w, draw(n), draw(m, n)), {"activation": "relu"}),
            "packed": Sample(
                "",
                (x, packed.data, None, None),
                {"w_format": packed.format, "w_shape": packed.shape},
            ),
        }
        for kernel in ours:
            sample = calls["packed" if kernel.name == "prepacked_tiles" else kernel.op]
            for config in cpu_numba_amx.CONFIGS:
                verdict = check_kernel(kernel, sample, dict(config), threads=1 + place % 2)
                if not verdict.ok:
                    return f"{kernel.id} of {m} x {n} x {k}: {verdict.text}"
    return None
