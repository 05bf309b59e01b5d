"""Results for people: a table in the terminal, a self-contained page with pictures, and other formats."""

from __future__ import annotations

from .html import page, write_page
from .summary import Summary, summarise
from .terminal import print_run

__all__ = ["Summary", "page", "print_run", "summarise", "write_page"]
