"""A worker process: does the jobs it is named, one after the other, and writes a line before and after each.

    python -m kernelwright.bench.cuda.worker ORDERS RESULTS

ORDERS is a JSON file: suite, check, seed, the names of the jobs, and when to stop. A kernel that goes astray
can take the whole process's hold of the GPU with it; the lines say which one it was, and `run` starts another
worker for the rest.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...kernels.cache import TuningCache
from ...kernels.cuda.clock import EventClock
from ...kernels.cuda.launch import runtime
from ..timing.gpu_device import Device, TorchDevice
from .cases.jobs import jobs
from .work import Place, timed

LOST = 70
"""The exit code of a worker that has lost the device."""


def main(orders: Mapping[str, Any], results: Path, place: Place) -> int:
    """Do the jobs; the exit code."""
    named = {job.name: job for job in jobs(orders["suite"], orders["check"])}
    with results.open("a", encoding="utf-8") as stream:

        def write(line: dict[str, Any]) -> None:
            stream.write(json.dumps(line, default=str) + "\n")
            stream.flush()

        for name in orders["names"]:
            if time.time() > orders["until"]:
                break
            write({"begin": name})
            try:
                result = timed(named[name], place)
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else ""
                write(
                    {
                        "name": name,
                        "result": {"status": "failed", "message": f"{type(error).__name__}: {first}"},
                    }
                )
                return LOST
            write({"name": name, "result": result})
    return 0


def queue() -> Device | None:
    """The device's queue; None, with a word on standard error, where torch or the driver lacks something."""
    try:
        return TorchDevice(capturing=runtime().in_turn)
    except Exception as error:  # races are then timed by plain events
        print(f"no queue to time behind: {type(error).__name__}: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    # What the searches find goes into the record and not into the user's cache: else the races after them
    # would run something else than those before.
    found = TuningCache(Path(sys.argv[2]).parent / "tuning")
    sys.exit(
        main(
            given,
            Path(sys.argv[2]),
            Place(EventClock(), seed=given["seed"], until=given["until"], cache=found, queue=queue()),
        )
    )
