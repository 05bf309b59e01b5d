"""Workers on a Ray cluster: on each node an actor that takes all of its CPUs, and a process that measures.

The actor only carries lines to and from `worker.py`. It asks for all CPUs of its node, so that nothing else
that Ray starts runs beside a measurement.
"""

from __future__ import annotations

import json
import logging
import os
import time
from importlib.util import find_spec
from typing import Any

from ...kernels.errors import ConfigError
from ..machine import environment
from .carrier import Carrier
from .identity import ELSEWHERE
from .spread import Event

# A node on which workers are lost again and again is given up.
MOST_STARTS = 4
GROW_EVERY_S = 2.0


def available() -> str | None:
    """None when Ray is there, else what to install."""
    return None if find_spec("ray") else "pip install 'kernelwright[ray]'"


class RayCrew:
    """A worker on every node of a cluster.

    Args:
        address: of the cluster; None for $RAY_ADDRESS, for one that runs on this machine, or else for a new
            one that is this machine alone.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str | None = None):
        lacking = available()
        if lacking is not None:
            raise ConfigError(f"--ray needs Ray, which is not installed: {lacking}.")
        # Before it is imported: nothing is to be reported to anybody.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self._ray: Any = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(ray, address)
        self._carrier = ray.remote(Carrier)
        self._actors: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._starts: dict[str, int] = {}
        self._refs: dict[Any, str] = {}
        self._greeted: set[str] = set()
        self._looked = -GROW_EVERY_S
        known = {n: value for n, value in environment().items() if n not in ELSEWHERE}
        self._variables = {"OPENBLAS_THREAD_TIMEOUT": "20", **known}

    def grow(self) -> None:
        """Starts a worker on each node that lives, has CPUs, and has none."""
        if time.monotonic() - self._looked < GROW_EVERY_S:
            return
        self._looked = time.monotonic()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        served = set(self._nodes.values())
        for node in self._ray.nodes():
            id_, cpus = node["NodeID"], node["Resources"].get("CPU", 0)
            starts = self._starts.get(id_, 0)
            if not node["Alive"] or cpus < 1 or id_ in served or starts >= MOST_STARTS:
                continue
            self._starts[id_] = starts + 1
            name = f"{id_[:6]}" + (f"-{starts + 1}" if starts else "")
            where = NodeAffinitySchedulingStrategy(id_, soft=False)
            actor = self._carrier.options(num_cpus=cpus, max_restarts=0, scheduling_strategy=where).remote(
                self._variables, f"{__package__}.worker"
            )
            self._actors[name], self._nodes[name] = actor, id_
            self._listen(name)

    @property
    def starting(self) -> int:
        """How many workers have not said hello yet."""
        return len(self._actors.keys() - self._greeted)

    def give(self, worker: str, order: dict[str, Any]) -> None:
        """Hands a line to a worker."""
        self._listen(worker, json.dumps(order))

    def events(self, seconds: float) -> list[Event]:
        """What was said meanwhile."""
        if not self._refs:
            time.sleep(min(seconds, 0.1))
            return []
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=seconds)
        return [event for ref in ready if (event := self._said(ref)) is not None]

    def dismiss(self, worker: str) -> None:
        """Ends a worker; its node is given up."""
        node = self._nodes.get(worker)
        if node is not None:
            self._starts[node] = MOST_STARTS
        self._drop(worker)

    def close(self) -> None:
        """Ends the workers, and the connection if it is ours."""
        for worker in list(self._actors):
            self._drop(worker)
        if self._mine:
            self._ray.shutdown()

    def _listen(self, worker: str, line: str | None = None) -> None:
        self._refs[self._actors[worker].exchange.remote(line)] = worker

    def _said(self, ref: Any) -> Event | None:
        worker = self._refs.pop(ref)
        if worker not in self._actors:
            return None
        try:
            ((word, value),) = json.loads(self._ray.get(ref)).items()
        except (self._ray.exceptions.RayError, RuntimeError) as error:
            self._drop(worker)
            return Event(worker, "lost", _reason(error))
        self._greeted.add(worker)
        # After these it waits to be given something.
        if word not in ("hello", "end", "refused"):
            self._listen(worker)
        return Event(worker, word, value)

    def _drop(self, worker: str) -> None:
        actor = self._actors.pop(worker, None)
        self._nodes.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor)


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address is None:
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:  # none runs on this machine: a cluster of one
                ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"no Ray cluster answers at {address or 'this machine'} ({why}): write --ray-address HOST:PORT, "
            "the address that `ray start --head` printed."
        ) from None


def _reason(error: BaseException) -> str:
    """The last line that says something: Ray wraps what the worker raised into a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("RuntimeError: ")]
    if telling:
        return telling[-1].removeprefix("RuntimeError: ")[:300]
    return lines[0][:300] if lines else type(error).__name__
