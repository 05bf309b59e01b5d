"""What was measured, kept: a JSON document for each run."""

from .document import (
    Case,
    RaceRecord,
    ResultFileError,
    Run,
    dumps,
    timing_record,
)

__all__ = ["Case", "RaceRecord", "ResultFileError", "Run", "dumps", "timing_record"]
