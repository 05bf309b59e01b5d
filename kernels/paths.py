"""Where this package keeps its own files, tuning results and compiled code: in the user's cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "KERNELWRIGHT_CACHE_DIR"


def cache_dir() -> Path:
    """The directory for this package's files. It may not exist yet, and may not be writable.

    `KERNELWRIGHT_CACHE_DIR` if it is set, else `kernelwright` under the platform's cache directory:
    `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`.
    """
    chosen = os.environ.get(CACHE_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _user_cache_dir() / "kernelwright"


def _user_cache_dir() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and a user id that no password file knows: as in some containers
        home = Path("/nonexistent")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and must be ignored.
    return Path(chosen) if os.path.isabs(chosen) else home / ".cache"
