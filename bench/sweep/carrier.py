"""What runs on a machine of a cluster: it starts the process that measures, and carries lines to and from it.

It imports nothing of the package, whose import would cost the actor seconds and memory for nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

# Ray gives its workers OMP_NUM_THREADS; it is the suite's to say how many threads run.
OF_THE_DRIVER = ("OMP_NUM_THREADS",)


class Carrier:
    """The actor: starts the process that measures, and carries lines. Runs on the node."""

    def __init__(self, variables: Mapping[str, str], module: str):
        kept = {name: value for name, value in os.environ.items() if name not in OF_THE_DRIVER}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**kept, **variables},
        )

    def exchange(self, line: str | None) -> str:
        """Hands over a line, if there is one, and waits for the next that the process says.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if line is not None:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            said = self._process.stdout.readline()
        except OSError:
            said = ""
        if not said:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            raise RuntimeError(" ".join([f"its process ended with {code}", *last]))
        return said
