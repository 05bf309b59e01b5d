"""A headless Chromium for what only a browser can do with a page: a picture of it, and the tests of it.

It is the system's Chromium, driven by Playwright, which downloads nothing for that. No request of a page
leaves the machine: the browser is offline.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...kernels.errors import KernelwrightError

VARIABLE = "KERNELWRIGHT_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# As root, in a container, without a GPU or a network: none of these changes what a page looks like.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class BrowserError(KernelwrightError, RuntimeError):
    """There is no browser, or it did not do what it was asked."""


def missing() -> str | None:
    """What to install before a browser can be started; None when all is there."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright (its own browsers are not needed)"
    if executable() is None:
        return (
            "no Chromium was found: apt-get install chromium, or name one in the environment variable "
            f"{VARIABLE}"
        )
    return None


def executable() -> str | None:
    """The path of a Chromium: the one named in KERNELWRIGHT_CHROMIUM, or one on the PATH."""
    named = os.environ.get(VARIABLE)
    if named:
        return shutil.which(named)
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, as Playwright's `Browser`.

    Raises:
        BrowserError: something is missing; the message says what to install.
    """
    why = missing()
    if why is not None:
        raise BrowserError(f"a browser is needed, and {why}.")
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=executable(), args=list(FLAGS), headless=True
            )
        except Error as error:
            raise BrowserError(
                f"{executable()} could not be started: {error.message.splitlines()[0]}"
            ) from None
        try:
            yield browser
        finally:
            browser.close()
