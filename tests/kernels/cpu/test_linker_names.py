"""Machine code from several processes, loaded side by side, must not be mistaken for each other.

Numba numbers the functions of a process; two objects on disk that were compiled in different processes may
carry the same numbers, and a linker that knows them only by those would call one factory's function for
another's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import numpy as np
import kernelwright as kw

rng = np.random.default_rng(0)
a, b = rng.standard_normal((48, 40)).astype("float32"), rng.standard_normal((40, 70)).astype("float32")
for name in sys.argv[1:]:
    kernel, _, rest = name.partition(":")
    from kernelwright.kernels import registry
    from kernelwright.kernels.spec import TensorSpec
    (found,) = [k for k in registry.kernels_for("matmul") if k.name == kernel]
    out = np.full((48, 70), np.nan, "float32")
    specs = tuple(TensorSpec.of(x) for x in (a, b, out))
    config = found.configurations(specs, {}, 1)[int(rest)]
    found.bind(specs, {}, config, 1)(a, b, out)
    assert np.allclose(out, a.astype(float) @ b, atol=1e-4), (name, config)
print("right")
"""


def run(cache: Path, *names: str) -> str:
    environment = {**os.environ, "KERNELWRIGHT_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_code_compiled_in_different_processes_works_side_by_side(tmp_path: Path) -> None:
    # Each process compiles one tile as its first function, so all of them get the same numbers from Numba.
    tiles = ["dots:0", "dots:2"]
    for tile in tiles:
        assert run(tmp_path, tile) == "right"
    assert run(tmp_path, *tiles) == "right"
