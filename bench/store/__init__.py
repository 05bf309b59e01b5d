"""What was measured, kept: a JSON document for each run, and all of them in one database."""

from .database import Point, Store, Unfinished, store_path
from .document import (
    Case,
    CaseKey,
    RaceRecord,
    ResultFileError,
    Run,
    dumps,
    timing_record,
)
from .keys import MachineKey
from .schema import StoreError

__all__ = [
    "Case",
    "CaseKey",
    "MachineKey",
    "Point",
    "RaceRecord",
    "ResultFileError",
    "Run",
    "Store",
    "StoreError",
    "Unfinished",
    "dumps",
    "store_path",
    "timing_record",
]
