"""Where the results of a run go while it is made, and what is taken over from one that was cut short.

Each case goes into the store when it is finished. The document, which is written whole, follows when the run
has grown by an eighth or a minute has passed: written after each of n cases it would cost n^2, so it costs
about 9 n. When there is no store, it is written after every case all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from ...kernels.errors import ConfigError
from ..runner import Request
from ..store import Case, CaseKey, Run, Store, StoreError
from ..store.database import Unfinished, now

MOST_UNSAVED_S = 60.0
GROWN_BY = 8

Tell = Callable[[str], None]


class Keeper:
    """Keeps one run: as cases in the store and as a document.

    Attributes:
        run: as far as it came; cases of an interrupted one are in it from the start.
        json: where the document goes; the interrupted run's own, unless another was asked for.
        kept: how many cases were taken over.

    Args:
        run: the empty document.
        key: what was asked for, as `request_key` says it.
        json: where the document goes; `chosen` if the user said so.
        store: where the store lies.
        fresh: take over nothing.
        tell: told what the user should know.

    Raises:
        ConfigError: the document can't be written.
    """

    def __init__(self, run: Run, key: str, json: Path, *, chosen: bool, store: Path, fresh: bool, tell: Tell):
        self.run, self.json, self.kept = run, json, 0
        self._tell = tell
        self._saved, self._saved_at = 0, time.monotonic()
        self._store, self._id = _opened(store, tell), 0
        self._before, self._started = 0.0, time.monotonic()
        run.id = uuid4().hex
        found = self._taken_up(key, fresh)
        if found is not None:
            self.run, self.kept = found.run, len(found.run.results)
            self.run.status, self.run.finished = "running", None
            self.run.resumed.append(now())
            self._before = self.run.seconds
            self._id = found.id
            if not chosen and found.path is not None:
                self.json = found.path
        self.save()
        if self._store is not None and found is None:
            self._id = self._store.begin(run, key, self.json.absolute())

    def resuming(self, request: Request) -> str:
        """What the user is told about the cases taken over."""
        return (
            f"resuming: {self.kept} of {request.cases} cases kept from {self.run.started} "
            "(--fresh starts anew)"
        )

    @property
    def done(self) -> frozenset[CaseKey]:
        """The cases that need not be measured."""
        return frozenset(case.key for case in self.run.results)

    def add(self, case: Case) -> None:
        """Keeps a finished case: in the store when this returns."""
        self.run.results.append(case)
        if self._store is not None:
            try:
                self._store.add_case(self._id, case)
            except StoreError as error:
                self._without(error)
        grown = len(self.run.results) - self._saved
        waited = time.monotonic() - self._saved_at > MOST_UNSAVED_S
        if self._store is None or waited or grown >= max(1, self._saved // GROWN_BY):
            self.save()

    def save(self) -> None:
        """Writes the document, and what the store knows of the run beside its cases.

        Raises:
            ConfigError: the document can't be written.
        """
        self.run.seconds = self._before + time.monotonic() - self._started
        try:
            self.run.save(self.json)
        except OSError as problem:
            raise ConfigError(
                f"results can't be written to {self.json} ({problem.strerror}): write --json PATH with a "
                "path that can."
            ) from None
        self._saved, self._saved_at = len(self.run.results), time.monotonic()
        if self._store is not None and self._id:
            try:
                self._store.save_head(self._id, self.run)
            except StoreError as error:
                self._without(error)

    def close(self, status: str, order: Sequence[CaseKey]) -> None:
        """Ends the run: its cases in the order of the request, the document and the store up to date."""
        place = {key: i for i, key in enumerate(order)}
        self.run.results.sort(key=lambda case: place.get(case.key, len(place)))
        self.run.status, self.run.finished = status, now()
        self.save()
        if self._store is not None:
            try:
                self._store.finish(self._id, self.run)
            except StoreError as error:
                self._without(error)
            else:
                self._store.close()

    def _taken_up(self, key: str, fresh: bool) -> Unfinished | None:
        if self._store is None or fresh:
            return None
        try:
            found = self._store.unfinished(key)
            return found if found is not None and self._store.take_up(found) else None
        except StoreError as error:
            self._without(error)
            return None

    def _without(self, error: StoreError) -> None:
        self._tell(f"{error} The run goes on; its cases are kept in {self.json} alone.")
        if self._store is not None:
            self._store.close()
        self._store = None


def _opened(path: Path, tell: Tell) -> Store | None:
    try:
        store = Store.open(path)
    except StoreError as error:
        tell(f"{error} The run goes on without it: an interruption can't be resumed.")
        return None
    for note in store.notes:
        tell(note)
    return store
