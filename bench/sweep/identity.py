"""What makes two runs the same request: only then may the cases of one stand in the document of the other."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from ..runner import Request
from ..store import MachineKey, Run, timing_record
from ..store.keys import digest_of

PACKAGE = Path(__file__).resolve().parent.parent.parent
# The code that decides what a case measures; reports and the command line don't.
MEASURED = ("kernels", "engine", *(f"bench/{room}" for room in ("baselines", "honest", "problems", "timing")))
SOURCES = {".py", ".cu", ".cuh", ".json"}
# They say where things are kept, and change no figure.
ELSEWHERE = ("KERNELWRIGHT_CACHE_DIR", "KERNELWRIGHT_STORE", "NUMBA_CACHE_DIR")


def request_key(request: Request, run: Run, ray: bool = False) -> str:
    """The digest of all that a case of this run depends on, as far as it is known before.

    Args:
        request: what is to be measured.
        run: the empty document of it: machine, versions, commit, vendors.
        ray: whether the cases run wherever there is room.
    """
    return digest_of(
        {
            "suite": request.suite,
            "problems": [problem.to_json() for problem in request.problems],
            "threads": request.threads,
            "kernels": [(c.kernel, c.argument, _contents(c.argument)) for c in request.contenders],
            "baselines": run.baselines,
            "caches": request.caches,
            "timing": timing_record(request.timing),
            "timed": request.time_them,
            "seed": request.seed,
            "machine": MachineKey.of(run.machine, run.versions).digest,
            "environment": {n: value for n, value in run.environment.items() if n not in ELSEWHERE},
            "git": run.git,
            "sources": sources_digest(),
            "ray": ray,
        }
    )


@cache
def sources_digest() -> str:
    """The digest of the code that is measured and of the code that measures."""
    whole = sha256()
    for room in MEASURED:
        for path in sorted((PACKAGE / room).rglob("*")):
            if path.suffix in SOURCES:
                whole.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def _contents(argument: str | None) -> str | None:
    """The digest of an extender's file; None for a kernel of ours."""
    if argument is None or not argument.endswith(".py"):
        return None
    return sha256(Path(argument).read_bytes()).hexdigest()[:12]
