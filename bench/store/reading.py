"""JSON files that people hand over: one way to read them, and to say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, error: type[Exception]) -> Any:
    """What a file holds.

    Args:
        path: the file.
        error: raised, with a sentence that names the file, when it can't be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise error(f"{path} can't be read: {problem.strerror}.") from None
    except ValueError as problem:
        raise error(f"{path} is no JSON: {problem}.") from None
